-- Notes that a part of a rebuild has been written to a partition, if all its batches are there.
--
-- KEYS  1 watermark  2 notes  3 never (no such key)
-- ARGV  1 epoch  2 part  3 how many batches of it were written
--
-- Answers 1, or 0 if Redis has forgotten one of them.

local field = 'part:' .. ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'epoch', field)
if found[1] ~= ARGV[1] or (found[2] or '0') ~= ARGV[3] then
    return 0
end
redis.call('HDEL', KEYS[1], field)
redis.call('SETBIT', KEYS[2], ARGV[2], 1)
return 1
