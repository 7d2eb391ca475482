-- open_v3: open a session: register the device, and decide where each of the user's streams starts for it.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, tag (the user's), device, node, is_foreign (the brought offsets are of another
--       epoch), devices_max, streams: list of {stream, tag, brought (id, '' if none)}}: the inbox, the groups of the
--       user's list and those that the device has an offset of, as read just before, and `all`
-- Returns {'ok', list of {stream, offset (stored), start (of this connection), head, floor, foreign (id of another
--         history, nil if none)}}
-- Errors  fenced, reset, too_many_devices (this one is not known, and the user has so many), before anything is
--         written. Harmless twice.
--
-- A group that the user has left is answered while this device lacks something of the time before, with the end of
-- the membership as its head; after that it is left out, and its offset dropped. It is on the user's list no more.
--
-- Where nothing usable is stored, a stream starts at the floor of the inbox, at the open stretch of a group, at
-- the head of `all`. A brought offset above the stored one counts as an ack; one below only moves the start, not
-- before the first stretch in a group; one above the head is answered as it is: the page will find it foreign.

-- The row to answer for a stream, nil for none, and the value to store for it (nil when it stands already).
local function row_for(arg, stream, stored)
  local head, floor = bounds(stream.tag, stream.stream)
  local begin, first, left = bounds_for(arg, stream, head, floor)
  if not begin or (left and not stored) then return nil end
  -- A head that fell behind the point of joining was deleted; what comes now is above it all the same.
  if is_above(begin, head) then begin = head end

  local at, foreign = stored_offset(arg, stream, stored, head, floor)
  local offset = at or begin
  local start, brought = offset, stream.brought
  if brought ~= '' and arg.is_foreign then
    foreign = brought
  elseif brought ~= '' then
    foreign, start = false, brought
    if is_given(brought, head) then
      if is_above(brought, offset) then offset = brought elseif is_above(first, brought) then start = first end
    end
  end
  if left then
    if not is_above(left, start) then return nil end
    head = left
  end
  local value = offset .. ' ' .. arg.epoch
  return {stream.stream, offset, start, head, floor, foreign}, value ~= stored and value or nil
end

local function open(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {[arg.tag] = true}
  for _, stream in ipairs(arg.streams) do tags[stream.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local devices_key, list_key = key(arg.tag, 'd', arg.user), key(arg.tag, 'u', arg.user)
  local offsets_key = key(arg.tag, 'o', arg.user .. '/' .. arg.device)
  local known = redis.call('HGET', devices_key, arg.device)
  if not known and redis.call('HLEN', devices_key) >= arg.devices_max then return {'too_many_devices'} end
  local stored = {}
  local fields = redis.call('HGETALL', offsets_key)
  for i = 1, #fields, 2 do stored[fields[i]] = fields[i + 1] end

  local rows, offsets, ended, denied = {}, {}, {}, {}
  for _, stream in ipairs(arg.streams) do
    local row, value = row_for(arg, stream, stored[stream.stream])
    rows[#rows + 1] = row
    if not row then
      ended[#ended + 1] = stream.stream
      denied[#denied + 1] = string.sub(stream.stream, 7)
    end
    if value then
      offsets[#offsets + 1] = stream.stream
      offsets[#offsets + 1] = value
    end
  end

  local now = now_ms()
  local is_read, device = pcall(cjson.decode, known or '')
  local first = is_read and type(device) == 'table' and device.first or now
  redis.call('HSET', devices_key, arg.device, cjson.encode({first = first, last = now, node = arg.node}))
  in_chunks('HSET', offsets_key, offsets)
  in_chunks('HDEL', offsets_key, ended)
  in_chunks('HDEL', list_key, denied)
  return {'ok', rows}
end

redis.register_function{function_name = 'open_v3', callback = open, flags = {'allow-oom'}}
