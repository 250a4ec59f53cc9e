-- Declares a partition whole that a rebuild has written, if all its parts are there.
--
-- KEYS  1 watermark  2 notes  3 never (no such key)
-- ARGV  1 epoch  2 how many parts there are
--
-- Answers 1, or 0 if Redis has forgotten a part.

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] or redis.call('BITCOUNT', KEYS[2]) ~= tonumber(ARGV[2]) then
    return 0
end
redis.call('HDEL', KEYS[1], 'unfilled')
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 5) == 'part:' then
        redis.call('HDEL', KEYS[1], field)
    end
end
return 1
