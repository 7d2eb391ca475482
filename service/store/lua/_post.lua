-- Shared by the functions that append entries: composed after _append.lua.
--
-- What goes to mailboxes is collected in a post and handed over at the end of the call, whatever became of single
-- messages: one mailbox entry for many records. A record is a list whose last values are left out where they are empty:
-- stream, ms, n, connection and send (the origin, in the caller's own mailbox alone; else 0, 0), type, from, to, mid,
-- body, target, trace, 1 if the body is too large for mailboxes. One without a type is the record before it once more,
-- in another stream.

local BODY_MAX = 4096    -- bytes; a larger body goes to mailboxes as a reference, else every node adds a copy
local ENTRY_MAX = 16384  -- bytes of records in one entry of a mailbox: with its cap the most that a mailbox can hold
local SMALL = 64         -- bytes; about what numbers, type and lengths take in a record

local function new_post(mine) return {mine = mine, boxes = {}} end

-- What the records of a message have in common: the values from its type on.
local function content(kind, from, to, mid, body, target, trace)
  local common, is_large = {kind, from, to, mid, body}, #body > BODY_MAX
  if is_large then common[5] = '' end
  if is_large or target ~= '' or trace ~= '' then common[6], common[7] = target, trace end
  if is_large then common[8] = 1 end
  common.size = SMALL + #from + 2 * #to + #mid + #common[5] + #target + #trace
  return common
end

local function record(s, connection, send, common)
  return {s.name, s.ms, s.n, connection, send, unpack(common)}
end

-- Puts a record, and perhaps the one that is like it, into the box of a mailbox on the register of `s`.
local function put(post, mailbox, size, s, first, like_it)
  local box = post.boxes[mailbox]
  if not box then
    box = {streams = {}, entries = {}, size = ENTRY_MAX}
    post.boxes[mailbox] = box
  end
  box.streams[s] = true
  box.size = box.size + size
  if box.size > ENTRY_MAX then
    box.entries[#box.entries + 1], box.size = {}, size
  end
  local entry = box.entries[#box.entries]
  entry[#entry + 1] = first
  entry[#entry + 1] = like_it
  return box
end

-- Puts the entry at the head of `s`, and the one of the same content at the head of `copy` (the sender's inbox; nil if
-- there is none), into the boxes of all who want them. The origin is that of the copy, where there is one.
local function deliver(post, s, copy, connection, send, common)
  local mine, size = post.mine, common.size
  for mailbox in pairs(s.register) do
    local by, number = mailbox == mine and connection or 0, mailbox == mine and send or 0
    if not copy then
      put(post, mailbox, size, s, record(s, by, number, common))
    elseif copy.register[mailbox] then
      local like_it = {copy.name, copy.ms, copy.n, by, number}
      put(post, mailbox, size, s, record(s, 0, 0, common), like_it).streams[copy] = true
    else
      put(post, mailbox, size, s, record(s, 0, 0, common))
    end
  end
  for mailbox in pairs(copy and copy.register or {}) do
    if not s.register[mailbox] then
      local is_mine = mailbox == mine
      put(post, mailbox, size, copy, record(copy, is_mine and connection or 0, is_mine and send or 0, common))
    end
  end
end

-- Adds what was collected to the mailboxes. One that is gone is taken off the registers; one that fails is deleted too,
-- so that its reader finds its lease gone and reads pages. Raises nothing on account of a mailbox.
local function hand_over(post, cap)
  -- A mailbox means nothing to a replica, nor after a restart: its reader makes a new one there. So it costs no disk.
  redis.set_repl(redis.REPL_NONE)
  local gone = {}
  for mailbox, box in pairs(post.boxes) do
    for _, entry in ipairs(box.entries) do
      local packed = cmsgpack.pack(entry)
      local reply = redis.pcall('XADD', mailbox, 'NOMKSTREAM', 'MAXLEN', '~', cap, '1-*', 'r', packed)
      if not reply or type(reply) == 'table' then
        if reply then redis.call('DEL', mailbox) end
        gone[mailbox] = box
        break
      end
    end
  end
  redis.set_repl(redis.REPL_ALL)
  for mailbox, box in pairs(gone) do
    for s in pairs(box.streams) do redis.call('HDEL', s.hash, mailbox) end
  end
end
