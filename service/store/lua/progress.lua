-- progress_v1: how far a device has come in some of its user's streams. Writes nothing.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, tag (the user's), device, streams: list of {stream, tag}}: the inbox, `all`, or groups
--       of the user's list, as read just before
-- Returns {'ok', list of {stream, head, floor, offset (id: what is stored for the device, else where it would begin)}};
--         groups that the user is no member of are left out
-- Errors  fenced, reset

local function progress(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {[arg.tag] = true}
  for _, stream in ipairs(arg.streams) do tags[stream.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local offsets_key, rows = key(arg.tag, 'o', arg.user .. '/' .. arg.device), {}
  for _, stream in ipairs(arg.streams) do
    local head, floor = bounds(stream.tag, stream.stream)
    local begin, _, left = bounds_for(arg, stream, head, floor)
    if begin and not left then
      if is_above(begin, head) then begin = head end
      local stored = redis.call('HGET', offsets_key, stream.stream)
      rows[#rows + 1] = {stream.stream, head, floor, stored_offset(arg, stream, stored, head, floor) or begin}
    end
  end
  return {'ok', rows}
end

redis.register_function{function_name = 'progress_v1', callback = progress, flags = {'no-writes'}}
