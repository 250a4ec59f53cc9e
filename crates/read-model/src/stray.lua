-- Whether an entry of a list has no place there, by what is remembered of its post; and if so, takes it out.
--
-- KEYS  1 listed  2 the list  3 never (no such key)
-- ARGV  1 post  2 name of the list  3 place  4 `1` to take it out
--
-- Answers 1 if it is in the list and should not be.

if not redis.call('ZSCORE', KEYS[2], ARGV[3]) then
    return 0
end
local listed = redis.call('HGET', KEYS[1], ARGV[1])
if listed and string.find(listed .. '\n', '\n' .. ARGV[2] .. '\t' .. ARGV[3] .. '\n', 1, true) then
    return 0
end
if ARGV[4] == '1' then
    redis.call('ZREM', KEYS[2], ARGV[3])
end
return 1
