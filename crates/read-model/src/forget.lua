-- Takes out a post that the log has never heard of: its places, what is remembered of them, and its row.
--
-- KEYS  1 listed  2 row  3 quarantined  4 never (no such key)
-- ARGV  1 post  2 prefix of the keys of lists  3 channel  4 announcement
--
-- Answers 1 if it was there.

local listed = redis.call('HGET', KEYS[1], ARGV[1])
if not listed then
    return 0
end
for list, place in string.gmatch(listed, '([^\t\n]+)\t([^\n]+)') do
    redis.call('ZREM', ARGV[2] .. list, place)
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('UNLINK', KEYS[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
