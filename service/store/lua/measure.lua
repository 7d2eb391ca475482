-- measure_v1: go on measuring the size of a stream, so that a limit in bytes can be kept; one bounded step.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, limit (entries), ttl (seconds that the measure is kept without another call)}
-- Returns {'ok', bytes above the floor measured so far, more (1: there is more to measure)}. Harmless twice and late:
--         each entry is counted once, and `trim` and `redact` take off what goes.
-- Errors  fenced, reset, before anything is written.

local function measure(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end

  local name = key(arg.tag, 'b', arg.stream)
  local _, floor = bounds(arg.tag, arg.stream)
  local found = redis.call('HMGET', name, 'upto', 'bytes')
  local upto, bytes = found[1] or '0-0', tonumber(found[2]) or 0
  if is_above(floor, upto) then upto, bytes = floor, 0 end
  local ended = walk(key(arg.tag, 's', arg.stream), '(' .. upto, '+', arg.limit, function(entry, size)
    upto, bytes = entry[1], bytes + size
  end)
  redis.call('HSET', name, 'upto', upto, 'bytes', string.format('%.0f', bytes))
  redis.call('EXPIRE', name, arg.ttl)
  return {'ok', string.format('%.0f', bytes), ended == 'step' and 1 or 0}
end

redis.register_function{function_name = 'measure_v1', callback = measure, flags = {'allow-oom'}}
