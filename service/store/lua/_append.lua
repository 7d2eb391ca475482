-- Shared by the functions that append entries: composed after _shared.lua.
--
-- A stream's state is a table {name, key, hash, head, floor, register}, read before the first write and kept in
-- step with what the call writes. An entry is a table of the short field names; empty fields are left out.

local BODY_MAX = 4096  -- bytes; a larger body goes to mailboxes as a reference, else every node adds a copy
local FIELDS = {'t', 'f', 'o', 'i', 'b', 'l', 'd', 'r', 'x', 'p'}

-- All that is needed to append to a stream. Raises an error when one of its keys has another type.
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
  local kind = redis.call('TYPE', s.key).ok
  if kind ~= 'stream' and kind ~= 'none' then error('not a stream: ' .. s.key) end
  s.head = s.head or last_given(s.key)
  s.floor = s.floor or '0-0'
  return s
end

-- The id after the head: the server's clock, which never goes back here, and the next number.
local function next_id(s, now)
  local ms, n = split(s.head)
  return join_id(math.max(now, ms), n + 1)
end

local function flat(fields, entry)
  for _, name in ipairs(FIELDS) do
    local value = entry[name]
    if value and value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  return fields
end

-- Appends an entry and moves the head; returns its id. The id is given out once the head of `s` has moved.
local function append(s, now, entry)
  local id = next_id(s, now)
  redis.call('XADD', s.key, id, unpack(flat({}, entry)))
  s.head = id
  redis.call('HSET', s.hash, 'head', id)
  return id
end

-- Adds an entry to every mailbox on the register. `origin` goes only into the caller's own mailbox, `mine`.
-- A mailbox that is gone is taken off the register; one that fails is deleted too, so that its reader finds its
-- lease gone and reads pages. Raises nothing on account of a mailbox.
local function deliver(s, id, entry, cap, mine, origin)
  local copy = {t = entry.t, f = entry.f, o = entry.o, i = entry.i, b = entry.b, d = entry.d, x = entry.x, p = entry.p}
  if copy.b and #copy.b > BODY_MAX then copy.b, copy.l = nil, '1' end
  local fields = flat({'s', s.name, 'n', id}, copy)
  local size = #fields
  for mailbox in pairs(s.register) do
    fields[size + 1], fields[size + 2] = nil, nil
    if mailbox == mine and origin ~= '' then fields[size + 1], fields[size + 2] = 'c', origin end
    local reply = redis.pcall('XADD', mailbox, 'NOMKSTREAM', 'MAXLEN', '~', cap, '1-*', unpack(fields))
    if not reply or type(reply) == 'table' then
      if reply then redis.call('DEL', mailbox) end
      redis.call('HDEL', s.hash, mailbox)
      s.register[mailbox] = nil
    end
  end
end
