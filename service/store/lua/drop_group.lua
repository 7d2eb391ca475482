-- drop_group_v1: look whether a group that all have left may go, or let it go; one bounded step.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, group, tag, users: list of {user, tag}: some of its former members, or all, empty_before
--       (Redis ms: the group must be empty since before that), is_drop (boolean: else only look), lease, token}
-- Returns {'ok', status, count of the users that were looked at, the user that the status speaks of, or ''}:
--         clear     none of those looked at stands in the way (only looking)
--         more      their records are gone; there are others left, or users that were not looked at
--         dropped   the group is gone, or was; its head stays, floor = head
--         member, recent, unused, owed, unreadable, untrimmed   it stays: somebody is in it; was until lately; it has
--                   had no entry yet; a device has not fetched all of its user's time in it; a record cannot be read;
--                   its stream is not empty
--         Harmless twice. Whoever joins in between finds the group, or a new one.
-- Errors  fenced, reset; {'superseded', job's lease}. All before anything is written.
--
-- A record of membership must outlive its devices' way to the end of it: it says what they may still fetch, and
-- that a gap is theirs. A device without an offset in the group is owed nothing of it (open_v2 leaves it out).

local DEVICES_MAX = 1000  -- looked at in a call; who has more keeps the group, until some of them are forgotten

-- Whether a device of the user has not come to the end of the membership; and how many devices there were to look at.
local function is_owed(one, stream, left)
  local devices_key = key(one.tag, 'd', one.user)
  local count = redis.call('HLEN', devices_key)
  if count > DEVICES_MAX then return true, 1 end
  for _, device in ipairs(redis.call('HKEYS', devices_key)) do
    local stored = redis.call('HGET', key(one.tag, 'o', one.user .. '/' .. device), stream)
    local at = stored and string.match(stored, '^(%d+%-%d+) ')
    if stored and (not at or is_above(left, at)) then return true, count end
  end
  return false, count
end

local function drop_group(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {[arg.tag] = true}
  for _, one in ipairs(arg.users) do tags[one.tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end
  if redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end

  local stream, group_key = 'group:' .. arg.group, key(arg.tag, 'g', arg.group)
  local stream_key = key(arg.tag, 's', stream)
  if redis.call('EXISTS', group_key) == 0 then return {'ok', 'dropped', 0, ''} end
  -- Nothing happens in a group without members: its last entry is not younger than the last leaving. Where leaving is
  -- no entry, `/emptied` tells.
  local head = bounds(arg.tag, stream)
  local settings = redis.call('HMGET', group_key, '/members', '/emptied')
  if (tonumber(settings[1]) or 0) > 0 then return {'ok', 'member', 0, ''} end
  if head == '0-0' and not settings[2] then return {'ok', 'unused', 0, ''} end
  local head_ms = split(head)
  if math.max(head_ms, tonumber(settings[2]) or 0) >= arg.empty_before then return {'ok', 'recent', 0, ''} end

  local looked, devices = {}, 0
  for _, one in ipairs(arg.users) do
    if #looked > 0 and devices >= DEVICES_MAX then break end
    local record = redis.call('HGET', group_key, one.user)
    if record then
      local left = string.match(record, ',([^,;]*)$')
      if left == '' then return {'ok', 'member', #looked, one.user} end
      local left_ms = split(left or '')
      if not left_ms then return {'ok', 'unreadable', #looked, one.user} end
      if left_ms >= arg.empty_before then return {'ok', 'recent', #looked, one.user} end
      local owed, count = is_owed(one, stream, left)
      if owed then return {'ok', 'owed', #looked, one.user} end
      devices = devices + count
    end
    looked[#looked + 1] = one.user
  end
  if not arg.is_drop then return {'ok', 'clear', #looked, ''} end
  if redis.call('XLEN', stream_key) > 0 then return {'ok', 'untrimmed', 0, ''} end

  in_chunks('HDEL', group_key, looked)
  if #looked < #arg.users or redis.call('HLEN', group_key) > ARGS_MAX then return {'ok', 'more', #looked, ''} end
  for _, field in ipairs(redis.call('HKEYS', group_key)) do
    if string.sub(field, 1, 1) ~= '/' then return {'ok', 'more', #looked, ''} end
  end
  redis.call('HSET', key(arg.tag, 'h', stream), 'head', head, 'floor', head)
  redis.call('DEL', group_key, stream_key)
  redis.call('UNLINK', key(arg.tag, 'x', stream), key(arg.tag, 'z', stream), key(arg.tag, 'b', stream))
  return {'ok', 'dropped', #looked, ''}
end

redis.register_function{function_name = 'drop_group_v1', callback = drop_group, flags = {'allow-oom'}}
