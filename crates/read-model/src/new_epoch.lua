-- Begins a new epoch of one partition: all that was stored counts as absent from now on.
--
-- KEYS  1 watermark  2 listed  3 lists  4 quarantined  5 never (no such key)
-- ARGV  1 the epoch that was found, 2 its position (empty: there was no watermark)
--       3 incarnation  4 new epoch  5 position  6 event
--       7 below which position the partition is to be filled (empty: there is nothing to fill)
--       8 prefix of the keys of lists
--
-- Answers 1, or the watermark that was found instead (nothing if there is none).

local found = redis.call('HMGET', KEYS[1], 'incarnation', 'epoch', 'position', 'event', 'unfilled')
if (found[2] or '') ~= ARGV[1] or (found[3] or '') ~= ARGV[2] then
    return found[1] and found or false
end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    redis.call('UNLINK', ARGV[8] .. name)
end
-- Whoever folds a quarantined page again finds its event again.
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'incarnation', ARGV[3], 'epoch', ARGV[4], 'position', ARGV[5], 'event', ARGV[6])
if ARGV[7] ~= '' then
    redis.call('HSET', KEYS[1], 'unfilled', ARGV[7])
end
return 1
