-- Shared by the functions about groups and who is in them: composed after _shared.lua.
--
-- A group whose `/access` is `deleted` counts as one that does not exist. While members are left in it nobody makes it
-- anew; afterwards all its records are of the past, and `/made`, the head at which it was made anew, tells: whoever was
-- an owner before that is none any more. `/maker` is who made it by configuring it, and has not joined it yet.

-- The settings of a group; arg: {group, group_tag, announce (members; for groups without a setting of their own)}.
local function read_group(arg)
  local name = key(arg.group_tag, 'g', arg.group)
  local found = redis.call('HMGET', name, '/access', '/announce', '/members', '/made', '/maker')
  local is_deleted = found[1] == 'deleted'
  return {
    key = name,
    is_deleted = is_deleted,
    is_new = is_deleted or redis.call('EXISTS', name) == 0,  -- whoever comes makes it
    is_closed = found[1] == 'closed',
    announce = tonumber(found[2]) or arg.announce,
    members = tonumber(found[3]) or 0,
    made = found[4],
    maker = found[5],
  }
end

local function role_of(record) return record and string.match(record, '^(%a+)|') end

-- Whether this record makes its user, who may have left, the group's owner.
local function is_owner(group, user, record)
  if role_of(record) ~= 'owner' then return false end
  if is_member(record) or not group.made or user == group.maker then return true end
  local left = string.match(record, ',(%d+%-%d+)$')
  return left and is_above(left, group.made) or false
end

-- The refusal of `by`, who is to be a member and an owner, else nil. With `or_maker` whoever made the group will do.
local function not_by_owner(group, by, or_maker)
  if or_maker and by == group.maker then return nil end
  local record = redis.call('HGET', group.key, by)
  if not is_member(record) then return {'not_member'} end
  if role_of(record) ~= 'owner' then return {'not_allowed'} end
end

-- Writes the settings of a group that is made, or made anew at this head. `maker` is nil when somebody joins it, and
-- when a server key makes it.
local function make_group(group, head, maker)
  redis.call('HSET', group.key, '/access', group.is_closed and 'closed' or 'open')
  if maker then redis.call('HSET', group.key, '/maker', maker) else redis.call('HDEL', group.key, '/maker') end
  if not group.is_deleted then return end
  redis.call('HDEL', group.key, '/announce')
  redis.call('HSET', group.key, '/made', head)
end

-- What is told of a group: 1 if it is open, announce, members, head, floor, role of the user ('' for none), and where
-- the user's open stretch begins ('' for none).
local function group_row(group, arg, record)
  local head, floor = bounds(arg.group_tag, 'group:' .. arg.group)
  local since = is_member(record) and string.match(record, '([^|;,]+),$') or ''
  return {group.is_closed and 0 or 1, group.announce, group.members, head, floor, role_of(record) or '', since}
end
