-- Shared by the functions that append entries: composed after _shared.lua.
--
-- A stream's state is a table {name, key, hash, head, ms and n (of the head, numbers), floor, register}, read before
-- the first write and kept in step with what the call writes. Fields are a list: name, value, name, value …

-- An id as text. A whole number is written fastest as one; where C's `long` is too short for it, as a float.
local id_format
local function id_text(ms, n)
  if not id_format then id_format = string.format('%d', 2 ^ 40) == '1099511627776' and '%d-%d' or '%.0f-%.0f' end
  return string.format(id_format, ms, n)
end

-- All that is needed to append to a stream. Raises an error when its hash has another type, or its stream, unless a
-- head is known: then the first XADD raises it.
local function state(tag, stream)
  local s = {name = stream, key = key(tag, 's', stream), hash = key(tag, 'h', stream), register = {}}
  local fields = redis.call('HGETALL', s.hash)
  for i = 1, #fields, 2 do
    local field, value = fields[i], fields[i + 1]
    if field == 'head' or field == 'floor' or field == 'lost' then
      s[field] = value
    else
      s.register[field] = value
    end
  end
  s.head = s.head or last_given(s.key)
  s.ms, s.n = split(s.head)
  s.floor = s.floor or '0-0'
  return s
end

-- The id after the head, as text, ms and n: the server's clock, which never goes back here, and the next number.
local function next_id(s, now)
  local ms, n = math.max(now, s.ms), s.n + 1
  return id_text(ms, n), ms, n
end

-- Appends an entry and moves the head; returns its id. The id is given out once the head of `s` has moved.
local function append(s, now, fields)
  local id, ms, n = next_id(s, now)
  redis.call('XADD', s.key, id, unpack(fields))
  s.head, s.ms, s.n = id, ms, n
  redis.call('HSET', s.hash, 'head', id)
  return id
end
