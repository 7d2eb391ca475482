-- commit_v2: store how far devices have come.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, seen_ms, commits: list of {user, tag (the user's), device, offsets: list of {stream, tag,
--       id}}}
-- Returns {'ok'}. An offset only moves forward within an epoch (one of another epoch is overwritten), never above
--         the stream's head; devices that are not known are passed over. Harmless twice and late. That a device was
--         seen is noted to within seen_ms: one that acknowledges every second would cost another write each time.
-- Errors  fenced, reset, before anything is written. A key of the wrong type ends one commit, not the call.

local function commit(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, one in ipairs(arg.commits) do
    tags[one.tag] = true
    for _, offset in ipairs(one.offsets) do tags[offset.tag] = true end
  end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end
  local now = now_ms()

  local function store(one)
    local devices_key = key(one.tag, 'd', one.user)
    local offsets_key = key(one.tag, 'o', one.user .. '/' .. one.device)
    local known = redis.call('HGET', devices_key, one.device)
    if not known then return end
    local offsets = {}
    for _, offset in ipairs(one.offsets) do
      local stored = redis.call('HGET', offsets_key, offset.stream)
      local at, epoch = string.match(stored or '', '^(%S+) (%S+)$')
      local is_forward = not at or epoch ~= arg.epoch or is_above(offset.id, at)
      if is_forward and not is_above(offset.id, (bounds(offset.tag, offset.stream))) then
        offsets[#offsets + 1] = offset.stream
        offsets[#offsets + 1] = offset.id .. ' ' .. arg.epoch
      end
    end
    in_chunks('HSET', offsets_key, offsets)
    local last = tonumber(string.match(known, '"last":%s*(%d+)') or nil)
    if last and last <= now and now - last < arg.seen_ms then return end
    local is_read, device = pcall(cjson.decode, known)
    if not is_read or type(device) ~= 'table' then device = {first = now, node = ''} end
    device.last = now
    redis.call('HSET', devices_key, one.device, cjson.encode(device))
  end

  for _, one in ipairs(arg.commits) do pcall(store, one) end
  return {'ok'}
end

redis.register_function{function_name = 'commit_v2', callback = commit, flags = {'allow-oom'}}
