-- survey_v1: what a trim would remove, one bounded step; and how the stream stands. Writes nothing.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, after (id up to which earlier steps have counted, '' at first), skipped
--       (entries that they counted), upto, limit, keep, hold (as in trim), over (bytes that have to go; -1: no matter)}
-- Returns {'ok', entries, bytes, last (id, '' if none), more (1: another step may find more), is_held, {head, floor,
--         length (entries), next (the oldest entry that stays, '' if none), measured up to (id, '' if never),
--         measured bytes, now (Redis ms)}}
-- Errors  fenced, reset

local function survey(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end

  local stream_key = key(arg.tag, 's', arg.stream)
  local head, floor = bounds(arg.tag, arg.stream)
  local upto = (arg.upto == '' or is_above(arg.upto, head)) and head or arg.upto
  local is_held
  upto, is_held = unless_held(arg, upto)
  local length = redis.call('XLEN', stream_key)
  local over = arg.over >= 0 and arg.over or nil
  local found = oldest(stream_key, arg.after, upto, arg.limit, length - arg.skipped, arg.keep, over)

  local last = found.last or arg.after
  local next_entry = redis.call('XRANGE', stream_key, last ~= '' and '(' .. last or '-', '+', 'COUNT', 1)[1]
  local sizes = redis.call('HMGET', key(arg.tag, 'b', arg.stream), 'upto', 'bytes')
  local now = string.format('%.0f', now_ms())
  return {
    'ok', found.count, found.bytes, found.last or '', found.ended == 'step' and 1 or 0, is_held and 1 or 0,
    {head, floor, length, next_entry and next_entry[1] or '', sizes[1] or '', sizes[2] or '0', now},
  }
end

redis.register_function{function_name = 'survey_v1', callback = survey, flags = {'no-writes'}}
