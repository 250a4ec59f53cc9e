-- Notes that a part of a rebuild has been written to a partition, if all its batches are there.
--
-- KEYS  1 watermark  2 notes  3 never (no such key)
-- ARGV  1 epoch  2 part  3 the name of the try and the number of its last batch (empty: it had none)
--
-- Answers 1, or 0 if Redis has forgotten a batch.

local field = 'part:' .. ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'epoch', field)
if found[1] ~= ARGV[1] then
    return 0
end
-- Sent again, it finds its own note.
if ARGV[3] ~= '' and found[2] ~= ARGV[3] and redis.call('GETBIT', KEYS[2], ARGV[2]) == 0 then
    return 0
end
redis.call('HDEL', KEYS[1], field)
redis.call('SETBIT', KEYS[2], ARGV[2], '1')
return 1
