-- audit_streams_v1: look whether what is kept of streams agrees, and mend what has one right answer.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, streams: list of {stream, tag}, only_headless (boolean: pass over streams that have a head),
--       lease, token}
-- Returns {'ok', list of rows}, a row for each stream that was looked at, in order (fewer than asked when ledgers had
--         to be read: go on with the rest): a list of {kind, detail, count}. Mended are
--         head_missing, head_behind   the head is raised to the last id that the stream was given
--         floor_ahead                 the head is raised to the floor: what was removed had been given out
--         register_stale              mailboxes that are no more are taken off the register
--         and only told are foreign_entry (an entry above the head whose number is not: no publish made it),
--         below_floor (entries that count as removed; the next trim removes them), hole (numbers behind the floor
--         that are neither redacted nor in the ledger), unreadable (a key of another type). Harmless twice.
-- Errors  fenced, reset; {'superseded', job's lease}. All before anything is written.

local LEDGERS_MAX = 1  -- ledgers read in a call: a full one takes two milliseconds

-- How many of the numbers above `low` up to `high` a stream's redactions and ledger account for.
local function accounted(tag, stream, low, high)
  local count = 0
  local z_key = key(tag, 'z', stream)
  if redis.call('HLEN', z_key) > ARGS_MAX then return high - low end  -- too many to tell
  for _, number in ipairs(redis.call('HKEYS', z_key)) do
    local n = tonumber(number) or 0
    if n > low and n <= high then count = count + 1 end
  end
  for _, raw in ipairs(redis.call('LRANGE', key(tag, 'x', stream), 0, -1)) do
    -- By pattern: to decode all of a line takes four times as long.
    local after = tonumber(string.match(raw, '"after":"%d+%-(%d+)"'))
    local to = tonumber(string.match(raw, '"to":"%d+%-(%d+)"'))
    if after and to then count = count + math.max(0, math.min(to, high) - math.max(after, low)) end
  end
  return count
end

local function stale_mailboxes(fields)
  local stale = {}
  for i = 1, #fields, 2 do
    local field = fields[i]
    if string.match(field, '^wp:{%d+}:m:') and redis.call('EXISTS', field) == 0 then stale[#stale + 1] = field end
  end
  return stale
end

local function audit(arg, one, budget)
  local stream_key, hash = key(one.tag, 's', one.stream), key(one.tag, 'h', one.stream)
  local row = {}
  local found = redis.call('HMGET', hash, 'head', 'floor')
  local head, floor = found[1], found[2] or '0-0'
  if arg.only_headless and head then return row end
  local function tell(kind, detail, count) row[#row + 1] = {kind, detail, count or 1} end
  local function raise(kind, id)
    redis.call('HSET', hash, 'head', id)
    tell(kind, (head or 'none') .. ' -> ' .. id)
    head = id
  end

  local given = last_given(stream_key)
  local _, given_n = split(given)
  if not head then
    -- Ids of Waypost have numbers; a stream whose last one has none was written by somebody else.
    if given_n > 0 then raise('head_missing', given) else head = '0-0' end
  end
  local _, head_n = split(head)
  if is_above(given, head) then
    if given_n > head_n then raise('head_behind', given) else tell('foreign_entry', given) end
  end
  local _, floor_n = split(floor)
  _, head_n = split(head)
  if is_above(floor, head) and floor_n >= head_n then raise('floor_ahead', floor) end

  local stale = stale_mailboxes(redis.call('HGETALL', hash))
  in_chunks('HDEL', hash, stale)
  if #stale > 0 then tell('register_stale', stale[1], #stale) end

  local below = floor ~= '0-0' and redis.call('XRANGE', stream_key, '-', floor, 'COUNT', 1)[1]
  if below then tell('below_floor', below[1]) end
  local first = redis.call('XRANGE', stream_key, '(' .. floor, '+', 'COUNT', 1)[1]
  _, head_n = split(head)
  local _, high = split(first and first[1] or head)
  if first then high = high - 1 end
  if high > floor_n and high <= head_n then
    budget.ledgers = budget.ledgers + 1
    local missing = high - floor_n - accounted(one.tag, one.stream, floor_n, high)
    if missing > 0 then tell('hole', string.format('%.0f to %.0f', floor_n + 1, high), missing) end
  end
  return row
end

local function audit_streams(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, one in ipairs(arg.streams) do tags[one.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end
  if redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end

  local rows, budget = {}, {ledgers = 0}
  for i, one in ipairs(arg.streams) do
    if budget.ledgers >= LEDGERS_MAX then break end
    local is_done, row = pcall(audit, arg, one, budget)
    rows[i] = is_done and row or {{'unreadable', type(row) == 'table' and row.err or tostring(row), 1}}
  end
  return {'ok', rows}
end

redis.register_function{function_name = 'audit_streams_v1', callback = audit_streams, flags = {'allow-oom'}}
