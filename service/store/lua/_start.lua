-- Shared by the functions that tell where a device stands in its user's streams: composed after _shared.lua.

-- Whether an id can have been given out by a stream whose head this is: neither part is higher.
local function is_given(id, head)
  local ms, n = split(id)
  local head_ms, head_n = split(head)
  return ms <= head_ms and n <= head_n
end

-- Whether an offset of an earlier epoch still means something: its entry is there, or is known to have been.
local function is_there(stream, at, floor)
  if at == '0-0' or not is_above(at, floor) then return true end
  if #redis.call('XRANGE', key(stream.tag, 's', stream.stream), at, at) == 1 then return true end
  local _, n = split(at)
  return redis.call('HEXISTS', key(stream.tag, 'z', stream.stream), string.format('%.0f', n)) == 1
end

-- Where the stream begins for a device without progress, the earliest id it may ever be asked from, and, for a
-- group that the user has left, where the membership ended; nothing for a group that the user never was in.
local function bounds_for(arg, stream, head, floor)
  local group = string.match(stream.stream, '^group:(.*)$')
  if not group then return stream.stream == 'all' and head or floor, '0-0' end
  local record = redis.call('HGET', key(stream.tag, 'g', group), arg.user)
  if not record then return nil end
  local joined, left = string.match(record, '([^|;,]+),([^,;]*)$')
  return joined, string.match(record, '|([^,]+),'), left ~= '' and left or nil
end

-- The stored offset of a device in a stream; nil where none is usable, and then the one of another history, or false.
local function stored_offset(arg, stream, stored, head, floor)
  local at, epoch = string.match(stored or '', '^(%d+%-%d+) (%S+)$')
  if at and (not is_given(at, head) or (epoch ~= arg.epoch and not is_there(stream, at, floor))) then return nil, at end
  return at, false
end
