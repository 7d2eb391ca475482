-- trim_v1: remove the oldest entries of a stream, move its floor, and note it in the ledger; one bounded step.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, upto (id, included; counts up to the head), limit (entries), kind, policy,
--       limit_name (for the ledger), run (of a job; its successive steps share a line; '' if none),
--       lease, token (key of a job's lease and the token it must hold; '' if none)}
-- Returns {'ok', entries removed, floor, more (1: entries up to `upto` remain)}. An `upto` at or below the floor
--         changes nothing. Redactions at or below the floor go too.
-- Errors  fenced, reset, {'superseded', job's lease}. All before anything is written.

local STEP = 32  -- entries read at a time: ids cannot be read without bodies

-- The last of at most `limit` entries up to `upto`, nil when there is none, and how many they are.
local function find_last(name, upto, limit)
  local last, count = nil, 0
  while count < limit do
    local wanted = math.min(STEP, limit - count)
    local step = redis.call('XRANGE', name, last and '(' .. last or '-', upto, 'COUNT', wanted)
    count = count + #step
    if #step > 0 then last = step[#step][1] end
    if #step < wanted then break end
  end
  return last, count
end

-- Drops tombstones above number `low` up to `high`: number by number, or by looking at all, whichever is less.
local function drop_redactions(name, low, high)
  local numbers = {}
  if high - low < redis.call('HLEN', name) then
    for n = low + 1, high do numbers[#numbers + 1] = string.format('%.0f', n) end
  else
    for _, number in ipairs(redis.call('HKEYS', name)) do
      if tonumber(number) <= high then numbers[#numbers + 1] = number end
    end
  end
  in_chunks('HDEL', name, numbers)
end

local function note(ledger, line)
  local newest = redis.call('LINDEX', ledger, -1)
  local is_read, earlier = pcall(cjson.decode, newest or '')
  local is_same = is_read and type(earlier) == 'table' and line.run ~= '' and earlier.to == line.after
  for _, name in ipairs({'run', 'kind', 'policy', 'limit'}) do
    is_same = is_same and earlier[name] == line[name]
  end
  if is_same then
    line.after, line.count = earlier.after, earlier.count + line.count
    redis.call('LSET', ledger, -1, cjson.encode(line))
  else
    note_removal(ledger, line)
  end
end

local function trim(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end
  if arg.lease ~= '' and redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end

  local stream_key = key(arg.tag, 's', arg.stream)
  local head, floor = bounds(arg.tag, arg.stream)
  local upto = is_above(arg.upto, head) and head or arg.upto
  if not is_above(upto, floor) then return {'ok', 0, floor, 0} end

  local last, count = find_last(stream_key, upto, arg.limit)
  local next_entry = redis.call('XRANGE', stream_key, last and '(' .. last or '-', '+', 'COUNT', 1)[1]
  local has_more = next_entry and not is_above(next_entry[1], upto)

  -- The floor is the last id removed; or `upto`, over redacted and lost numbers, where its number can be true
  -- (an id made of a time has none).
  local to = last and is_above(last, floor) and last or floor
  local _, low = split(to)
  local _, high = split(next_entry and next_entry[1] or head)
  local _, upto_n = split(upto)
  if next_entry then high = high - 1 end
  if not has_more and upto_n > low and upto_n <= high then to = upto end
  if to == floor and count == 0 then return {'ok', 0, floor, 0} end

  if last then
    local ms, n = split(last)
    redis.call('XTRIM', stream_key, 'MINID', join_id(ms, n + 1))
  end
  redis.call('HSET', key(arg.tag, 'h', arg.stream), 'floor', to)
  note(key(arg.tag, 'x', arg.stream), {
    after = floor, to = to, count = count, kind = arg.kind, policy = arg.policy, limit = arg.limit_name,
    at = now_ms(), run = arg.run,
  })
  local _, floor_n = split(floor)
  local _, to_n = split(to)
  drop_redactions(key(arg.tag, 'z', arg.stream), floor_n, to_n)
  return {'ok', count, to, has_more and 1 or 0}
end

redis.register_function{function_name = 'trim_v1', callback = trim, flags = {'allow-oom'}}
