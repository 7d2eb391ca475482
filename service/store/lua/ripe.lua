-- ripe_v1: which of many streams have something that a limit lets go, so that the others need no call of their own.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, streams: list of {tag, stream, upto (id: older entries may go, '' for no such limit),
--       entries, bytes (limits, -1 for none)}}
-- Returns {'ok', list of {is_ripe, oldest entry ('' if none)}} in the same order, an empty row for a key that cannot be
--         read. A stream whose size is limited is ripe too where it has not been measured to its end. What `keep` and
--         `hold` say is not looked at.
-- Errors  fenced, reset

local function is_ripe(stream, oldest, newest)
  if stream.upto ~= '' and not is_above(oldest, stream.upto) then return true end
  if stream.entries >= 0 and redis.call('XLEN', key(stream.tag, 's', stream.stream)) > stream.entries then
    return true
  end
  if stream.bytes < 0 then return false end
  local sizes = redis.call('HMGET', key(stream.tag, 'b', stream.stream), 'upto', 'bytes')
  return not sizes[1] or is_above(newest, sizes[1]) or tonumber(sizes[2]) > stream.bytes
end

local function ripe(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, stream in ipairs(arg.streams) do tags[stream.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local function look(stream)
    local name = key(stream.tag, 's', stream.stream)
    local oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', 1)[1]
    local newest = stream.bytes >= 0 and redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
    local found = oldest and is_ripe(stream, oldest[1], newest and newest[1])
    return {found and 1 or 0, oldest and oldest[1] or ''}
  end

  local rows = {}
  for i, stream in ipairs(arg.streams) do
    local is_read, row = pcall(look, stream)
    rows[i] = is_read and row or {}
  end
  return {'ok', rows}
end

redis.register_function{function_name = 'ripe_v1', callback = ripe, flags = {'no-writes'}}
