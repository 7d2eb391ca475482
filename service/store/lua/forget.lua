-- forget_v1: take out of a group's records of membership what nobody needs any more, for the users that are named.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, group, group_tag, users: list of {user, user_tag}}
-- Returns {'ok', records that became shorter or went}. Harmless twice and late: what is needed is looked at here.
-- Errors  fenced, reset, before anything is written. A record whose user's keys are unreadable is passed over.
--
-- A user's own next joining or leaving does the same; this is for those who left for good.

local function forget(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {[arg.group_tag] = true}
  for _, one in ipairs(arg.users) do tags[one.user_tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local group_key, name = key(arg.group_tag, 'g', arg.group), 'group:' .. arg.group
  local _, floor = bounds(arg.group_tag, name)
  local changed = 0
  for _, one in ipairs(arg.users) do
    local record = redis.call('HGET', group_key, one.user)
    local whose = {epoch = arg.epoch, user = one.user, user_tag = one.user_tag}
    local is_read, kept = pcall(prune, record or '', {name = name, floor = floor}, whose)
    if record and is_read and kept ~= record then
      if kept then redis.call('HSET', group_key, one.user, kept) else redis.call('HDEL', group_key, one.user) end
      changed = changed + 1
    end
  end
  return {'ok', changed}
end

redis.register_function{function_name = 'forget_v1', callback = forget, flags = {'allow-oom'}}
