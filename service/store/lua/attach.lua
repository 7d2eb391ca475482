-- attach_v1: put a mailbox on the registers of streams, and answer where they stand at that moment.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, mailbox, wants: list of {tag, stream, token (rises with every wish of a node)}}
-- Returns {'ok', list of {head, floor}}, in the order asked; an empty row where the stream's hash is unreadable.
--         Harmless twice; a late call changes no registration that has a higher token.
-- Errors  fenced, reset; {'gone', mailbox} when the mailbox does not exist. All before anything is written.

local function attach(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, want in ipairs(arg.wants) do tags[want.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end
  if redis.call('EXISTS', arg.mailbox) == 0 then return {'gone', arg.mailbox} end

  local function register(want)
    local head, floor = bounds(want.tag, want.stream)
    local hash = key(want.tag, 'h', want.stream)
    local token = redis.call('HGET', hash, arg.mailbox)
    if not token or want.token > tonumber(token) then
      redis.call('HSET', hash, arg.mailbox, string.format('%.0f', want.token))
    end
    return {head, floor}
  end

  local rows = {}
  for i, want in ipairs(arg.wants) do
    local is_done, row = pcall(register, want)
    rows[i] = is_done and row or {}
  end
  return {'ok', rows}
end

redis.register_function{function_name = 'attach_v1', callback = attach, flags = {'allow-oom'}}
