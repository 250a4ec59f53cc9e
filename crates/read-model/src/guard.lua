-- The guard: lets events into the views of one partition once, in order, or says what stands in the way.
--
-- KEYS  1 watermark  2 listed  3 lists  4 quarantined  5 never (no such key)  6… one row each
-- ARGV  1 mode       `advance`: the rows follow from the events behind the watermark
--                    `fill`: the rows were folded from the log as of a position
--                    `repair`: the same, and what is stored is known to be wrong, so it gives way as well
--       2 incarnation  3 epoch     refused unless they are the watermark's
--       4 position                 advance: where the watermark must stand; fill: as of where
--       5 event                    advance: the event it must stand at
--       6 new position 7 new event advance: where it moves
--         unfilled                 fill, as the next part of filling the partition (else empty): below which
--                                  position it was not filled yet, which must still be so
--         batch                    fill, as a batch of a part of a rebuild (else empty): the number of the part, the
--                                  name of this try at it, and the number of the batch, from 1, with spaces
--                                  between them; the one before, or the same, must be the last that was written
--       8 unfilled from now on     fill: the same after it, 0 once it is filled, or empty to leave it
--       9 prefix of the keys of lists
--       10 channel  11 announcement   told to those who keep copies, once this is written (empty: nothing)
--       12 flags                   an id on each line, and behind a space the position of the event for which
--                                  the page is quarantined, or nothing if it is released, or in a run `?` if
--                                  it must be quarantined already
--       13… ten for each row: id, position, state, slug, created, card, content, html, memberships (the name
--           of a list, a tab and the place in it, each on a line; empty for none), and the event that the page
--           is quarantined for, if the row was folded up to the one before it
--
-- Answers 1, or the watermark that was found (nothing if there is none); then nothing was written.

local found = redis.call('HMGET', KEYS[1], 'incarnation', 'epoch', 'position', 'event', 'unfilled')
local mode, epoch = ARGV[1], ARGV[3]
if not found[1] then
    return false
end
if found[1] ~= ARGV[2] or found[2] ~= epoch then
    return found
end
if mode == 'advance' then
    if found[3] ~= ARGV[4] or found[4] ~= ARGV[5] then
        return found
    end
    for id in string.gmatch(ARGV[12], '(%S+) %?\n') do
        -- The run passes over this page's events, and somebody has released it since.
        if redis.call('HEXISTS', KEYS[4], id) == 0 then
            return found
        end
    end
    redis.call('HSET', KEYS[1], 'position', ARGV[6], 'event', ARGV[7])
elseif tonumber(found[3]) > tonumber(ARGV[4]) then
    -- The row may have been newer and been evicted since: an older one must not take its place.
    return found
elseif ARGV[6] ~= '' and ARGV[6] ~= found[5] then
    -- Redis has forgotten parts that were filled before, or somebody else has filled this one.
    return found
elseif ARGV[7] ~= '' then
    local part, try, batch = string.match(ARGV[7], '(%d+) (%S+) (%d+)')
    local this, last = try .. ' ' .. batch, redis.call('HGET', KEYS[1], 'part:' .. part)
    if batch ~= '1' and last ~= this and last ~= try .. ' ' .. (batch - 1) then
        -- Redis has forgotten the batch before.
        return found
    end
    redis.call('HSET', KEYS[1], 'part:' .. part, this)
elseif ARGV[8] == '0' then
    redis.call('HDEL', KEYS[1], 'unfilled')
elseif ARGV[8] ~= '' and found[5] and tonumber(ARGV[8]) < tonumber(found[5]) then
    redis.call('HSET', KEYS[1], 'unfilled', ARGV[8])
end

local function is_deleted(state)
    return state == 'deleted' or state == 'deleted-draft'
end

-- What is stored gives way only to what is newer. A row of another epoch counts as absent, and so does one whose
-- position is no number. Tells whether this one has been stored.
local function put_row(key, position, state, slug, created, card, content, html)
    local before = redis.call('HMGET', key, 'epoch', 'position')
    local as_of = before[1] == epoch and tonumber(before[2])
    if mode ~= 'repair' and as_of and as_of >= tonumber(position) then
        return false
    end
    -- All fields, so nothing of the row before stays. No DEL: Redis refuses a script for want of memory only
    -- at its first write, and only if that one takes some.
    redis.call('HSET', key, 'epoch', epoch, 'position', position, 'state', state,
        'slug', slug, 'created', created, 'card', card, 'content', content, 'html', html)
    if is_deleted(state) then
        redis.call('PERSIST', key)
    else
        -- A week from when it was last written or read: what nobody reads makes room, and is in the log.
        redis.call('EXPIRE', key, '604800')
    end
    return true
end

-- An entry of `listed` is a position on a line, and the memberships as of it. It stays when the post is in no
-- list any more, so that something older cannot put it back.
local membership = '([^\t\n]+)\t([^\n]+)'
-- What is put into lists goes to each in one command at the end: a call of a command costs as much as the entry.
local entries, listed = {}, {}
local function put_in_lists(id, position, memberships, state)
    local before, stays = redis.call('HGET', KEYS[2], id), false
    if before and mode ~= 'repair' then
        local as_of, memberships_before = string.match(before, '^(%d+)\n(.*)$')
        if as_of and tonumber(as_of) >= tonumber(position) then
            return
        end
        -- Most changes leave a post where it is.
        stays = memberships_before == memberships
    end
    if not stays then
        for list, place in string.gmatch(before or '', membership) do
            redis.call('ZREM', ARGV[9] .. list, place)
        end
        for list, place in string.gmatch(memberships, membership) do
            local places = entries[list] or {}
            -- As text: a number would have to be printed for Redis.
            places[#places + 1] = '0'
            places[#places + 1] = place
            entries[list] = places
        end
    end
    -- The rows of deleted posts stay for good. Whoever removes all that is here finds them by this.
    if before or memberships ~= '' or is_deleted(state) then
        listed[#listed + 1] = id
        listed[#listed + 1] = position .. '\n' .. memberships
    end
end

-- Lua hands over a few thousand values at a time and no more.
local function call_with_all(command, key, values)
    for first = 1, #values, 1000 do
        redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
    end
end

for id, position in string.gmatch(ARGV[12], '(%S+) (%d*)\n') do
    if position ~= '' then
        redis.call('HSET', KEYS[4], id, position)
    else
        redis.call('HDEL', KEYS[4], id)
    end
end
local some_are_quarantined = redis.call('EXISTS', KEYS[4]) == 1

for i = 6, #KEYS do
    local a = 13 + (i - 6) * 10
    -- A quarantined page stays as it was before the event that cannot be folded.
    local held = some_are_quarantined and redis.call('HGET', KEYS[4], ARGV[a])
    -- Where the row is newer, the lists went with it.
    if (not held or held == ARGV[a + 9]) and put_row(KEYS[i], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5], ARGV[a + 6], ARGV[a + 7]) then
        put_in_lists(ARGV[a], ARGV[a + 1], ARGV[a + 8], ARGV[a + 2])
    end
end
local lists = {}
for list, places in pairs(entries) do
    call_with_all('ZADD', ARGV[9] .. list, places)
    lists[#lists + 1] = list
end
call_with_all('SADD', KEYS[3], lists)
call_with_all('HSET', KEYS[2], listed)
if ARGV[11] ~= '' then
    redis.call('PUBLISH', ARGV[10], ARGV[11])
end
return 1
