-- A post as it lies in Redis, all of it at one moment.
--
-- KEYS  1 watermark  2 quarantined  3 row  4 listed  5 never (no such key)
-- ARGV  1 post  2 prefix of the keys of lists
--
-- Answers the watermark, the event that the page is quarantined for, the fields of the row, the entry of `listed`; and for
-- each place in that the list, the place, and the score that it has there, if it is there.

local listed = redis.call('HGET', KEYS[4], ARGV[1])
local places = {}
for list, place in string.gmatch(listed or '', '([^\t\n]+)\t([^\n]+)') do
    places[#places + 1] = list
    places[#places + 1] = place
    places[#places + 1] = redis.call('ZSCORE', ARGV[2] .. list, place)
end
return {
    redis.call('HMGET', KEYS[1], 'incarnation', 'epoch', 'position', 'event', 'unfilled'),
    redis.call('HGET', KEYS[2], ARGV[1]),
    redis.call('HGETALL', KEYS[3]),
    listed,
    places,
}
