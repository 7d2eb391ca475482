-- trim_v2: remove the oldest entries of a stream, move its floor, and note it in the ledger; one bounded step.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, upto (id, included; '' for the head; counts up to the head), limit (entries),
--       keep (entries that stay), keep_bytes (-1: no matter; else no more go than it takes to come down to so many, as
--       far as `measure` has measured), hold (nil, or {user, upto (id), idle_before (ms)}: see unless_held), kind,
--       policy, limit_name (for the ledger), run (of a job; its successive steps share a line; '' if none),
--       lease, token (key of a job's lease and the token it must hold; '' if none)}
-- Returns {'ok', entries removed, floor, more (1: another step may remove more), bytes removed, is_held (1: a device
--         that has not acknowledged kept something), floor before, oldest entry ('' if none)}. An `upto` at or below
--         the floor changes nothing, nor does the same call again or late. Redactions at or below the floor go too.
-- Errors  fenced, reset, {'superseded', job's lease}. All before anything is written.

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

-- Keeps what `measure` has measured in step with what went; what went above it is measured no more.
local function take_off(name, last, bytes)
  local measured = redis.call('HMGET', name, 'upto', 'bytes')
  if not measured[1] then return end
  if is_above(last, measured[1]) then
    redis.call('HSET', name, 'upto', last, 'bytes', '0')
  else
    redis.call('HSET', name, 'bytes', string.format('%.0f', math.max(0, tonumber(measured[2]) - bytes)))
  end
end

local function trim(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end
  if arg.lease ~= '' and redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end

  local stream_key, sizes_key = key(arg.tag, 's', arg.stream), key(arg.tag, 'b', arg.stream)
  local head, floor = bounds(arg.tag, arg.stream)
  local upto = (arg.upto == '' or is_above(arg.upto, head)) and head or arg.upto
  local is_held
  upto, is_held = unless_held(arg, upto)
  local held = is_held and 1 or 0
  local function nothing(next_entry)
    next_entry = next_entry or redis.call('XRANGE', stream_key, '-', '+', 'COUNT', 1)[1]
    return {'ok', 0, floor, 0, 0, held, floor, next_entry and next_entry[1] or ''}
  end
  if not is_above(upto, floor) then return nothing() end

  local over
  if arg.keep_bytes >= 0 then over = (tonumber(redis.call('HGET', sizes_key, 'bytes')) or 0) - arg.keep_bytes end
  local length = redis.call('XLEN', stream_key)
  local gone = oldest(stream_key, '', upto, arg.limit, length, arg.keep, over)
  local last = gone.last

  -- The floor is the last id removed; or `upto`, over redacted and lost numbers, where its number can be true
  -- (an id made of a time has none).
  local to = last and is_above(last, floor) and last or floor
  local next_entry = redis.call('XRANGE', stream_key, last and '(' .. last or '-', '+', 'COUNT', 1)[1]
  local has_more = gone.ended == 'step' and next_entry and not is_above(next_entry[1], upto)
  if gone.ended ~= 'kept' and not has_more then
    local _, low = split(to)
    local _, high = split(next_entry and next_entry[1] or head)
    local _, upto_n = split(upto)
    if next_entry then high = high - 1 end
    if upto_n > low and upto_n <= high then to = upto end
  end
  if to == floor and gone.count == 0 then return nothing(next_entry) end

  redis.call('LLEN', key(arg.tag, 'x', arg.stream))  -- raises before the first write when that is no list
  if last then
    local ms, n = split(last)
    redis.call('XTRIM', stream_key, 'MINID', join_id(ms, n + 1))
    take_off(sizes_key, last, gone.bytes)
  end
  redis.call('HSET', key(arg.tag, 'h', arg.stream), 'floor', to)
  note_in_run(key(arg.tag, 'x', arg.stream), {
    after = floor, to = to, count = gone.count, kind = arg.kind, policy = arg.policy, limit = arg.limit_name,
    at = now_ms(), run = arg.run,
  })
  local _, floor_n = split(floor)
  local _, to_n = split(to)
  drop_redactions(key(arg.tag, 'z', arg.stream), floor_n, to_n)
  local oldest_id = next_entry and next_entry[1] or ''
  return {'ok', gone.count, to, has_more and 1 or 0, gone.bytes, held, floor, oldest_id}
end

redis.register_function{function_name = 'trim_v2', callback = trim, flags = {'allow-oom'}}
