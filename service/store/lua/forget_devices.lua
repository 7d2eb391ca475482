-- forget_devices_v1: forget devices that were not seen for long, and how far they had come; one bounded step.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, users: list of {user, tag, cursor ('0' to begin)}, idle_before (Redis ms: who was seen last
--       before that is forgotten), limit (devices to look at; the last user's few more), lease, token}
-- Returns {'ok', list of {cursor to go on with ('0': this user is done), devices looked at, forgotten}}: fewer rows
--         than users when the limit was reached. A record that cannot be read counts as seen now. Harmless twice.
-- Errors  fenced, reset; {'superseded', job's lease}. All before anything is written.

local STEP = 100  -- devices of one user at a time; a small hash comes whole

local function forget_devices(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, one in ipairs(arg.users) do tags[one.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end
  if redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end
  local now = now_ms()

  -- Whether the device is to go.
  local function is_idle(devices_key, name, record)
    local is_read, device = pcall(cjson.decode, record)
    if is_read and type(device) == 'table' and tonumber(device.last) then
      return tonumber(device.last) < arg.idle_before
    end
    redis.call('HSET', devices_key, name, cjson.encode({first = now, last = now, node = ''}))
    return false
  end

  local function look(one)
    local devices_key = key(one.tag, 'd', one.user)
    local step = redis.call('HSCAN', devices_key, one.cursor, 'COUNT', STEP)
    local forgotten = 0
    for i = 1, #step[2], 2 do
      local name = step[2][i]
      if is_idle(devices_key, name, step[2][i + 1]) then
        redis.call('UNLINK', key(one.tag, 'o', one.user .. '/' .. name))
        redis.call('HDEL', devices_key, name)
        forgotten = forgotten + 1
      end
    end
    return {step[1], #step[2] / 2, forgotten}
  end

  local rows, looked = {}, 0
  for i, one in ipairs(arg.users) do
    if looked >= arg.limit then break end
    local is_done, row = pcall(look, one)
    rows[i] = is_done and row or {'0', 0, 0}
    looked = looked + rows[i][2]
  end
  return {'ok', rows}
end

redis.register_function{function_name = 'forget_devices_v1', callback = forget_devices, flags = {'allow-oom'}}
