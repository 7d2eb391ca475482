-- Shared by the functions that change memberships or forget them: composed after _shared.lua and _append.lua.
--
-- A membership record is "role|joined,left;joined,left;joined,": stretches, oldest first, the last one open while the
-- user is a member. A stretch holds what is above `joined` up to `left`.

-- The refusal of a call that comes outside of the span of server time that it was meant for, else nil. One that was
-- given up may lie in a buffer for long: carried out then, it would undo what its user did since. A clock that was set
-- back would let it through: hence the lower end.
local function untimely(arg, now)
  if now < arg.not_before or now > arg.not_after then return {'late', string.format('%.0f', now)} end
end

-- Where the device of the user that is furthest behind in a group stands; nil when none has an offset there. An
-- offset of another epoch may mean anything: it counts as the very beginning.
local function furthest_behind(arg, stream)
  local lowest
  for _, device in ipairs(redis.call('HKEYS', key(arg.user_tag, 'd', arg.user))) do
    local stored = redis.call('HGET', key(arg.user_tag, 'o', arg.user .. '/' .. device), stream)
    local at, epoch = string.match(stored or '', '^(%d+%-%d+) (%S+)$')
    if stored and epoch ~= arg.epoch then return '0-0' end
    if stored and (not lowest or is_above(lowest, at)) then lowest = at end
  end
  return lowest
end

-- A record without the stretches that mean nothing any more; nil when there is nothing left to be kept. Nothing can be
-- fetched of a stretch at or below the floor, or of one that holds no number; but as long as a device of the user has
-- not passed it, a gap is owed. What cannot be read is left alone. The owner's role outlives the stretches.
local function prune(record, group, arg)
  local role, body = string.match(record, '^([^|]*)|(.*)$')
  if not role then return record end
  local has_looked, behind = false, nil
  local function is_over(stretch)
    local joined, left = string.match(stretch, '^(%d+%-%d+),(%d+%-%d+)$')
    if not joined then return false end
    if is_above(left, group.floor) and is_above(left, joined) then return false end
    if not has_looked then has_looked, behind = true, furthest_behind(arg, group.name) end
    return not behind or not is_above(left, behind)
  end

  local kept = {}
  for stretch in string.gmatch(body, '[^;]+') do
    if not is_over(stretch) then kept[#kept + 1] = stretch end
  end
  if #kept == 0 and role ~= 'owner' then return nil end
  return role .. '|' .. table.concat(kept, ';')
end
