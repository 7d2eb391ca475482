-- detach_v1: take a mailbox off the registers of streams.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, mailbox, wants: list of {tag, stream, token}}
-- Returns {'ok'}. A registration with a higher token stays: a newer attach has come before this late call.
-- Errors  fenced, reset, before anything is written. A stream whose hash is unreadable is passed over.

local function detach(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, want in ipairs(arg.wants) do tags[want.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local function unregister(want)
    local hash = key(want.tag, 'h', want.stream)
    local token = redis.call('HGET', hash, arg.mailbox)
    if token and tonumber(token) <= want.token then redis.call('HDEL', hash, arg.mailbox) end
  end

  for _, want in ipairs(arg.wants) do pcall(unregister, want) end
  return {'ok'}
end

redis.register_function{function_name = 'detach_v1', callback = detach, flags = {'allow-oom'}}
