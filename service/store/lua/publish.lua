-- publish_v4: store a batch of messages, in order, and hand each to the mailboxes on its stream's register.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, mailbox (the caller's own, '' if none), mailbox_cap (entries), key_window (s), messages: a
--       list of lists: sender, to, tag, own, own_tag (the sender's inbox where a copy is due, else ''), mid, body,
--       device, connection, send (the origin; 0, 0 if none), key (digest of to, sender and key, '' if none), digest
--       (of the body, '' without a key), trace, and 1 if a server key sends it (to any group that is there, at any
--       rate)}; and rate (see _rate) where there is a limit
-- Returns {'ok', msgpack list of lists: status, ms and n of the entry as the sender finds it, and of the one in the
--         stream it was sent to}. status: ok, dup (stored before under this key), key_reused, not_member, no_group,
--         rate_limited (ms until it may come, instead of an id), internal (nothing written), uncertain (something of it
--         written; the same key completes it).
-- Errors  fenced, reset, before anything is written. An error ends one message, never the batch. No allow-oom.

local SENDER, TO, TAG, OWN, OWN_TAG, MID, BODY, DEVICE, CONNECTION, SEND, KEY, DIGEST, TRACE, IS_SYSTEM =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14

local function publish(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, message in ipairs(arg.messages) do
    tags[message[TAG]] = true
    if message[OWN] ~= '' then tags[message[OWN_TAG]] = true end
  end
  for _, tag in pairs(arg.rate and arg.rate.tags or {}) do tags[tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local now = now_ms()
  local post = new_post(arg.mailbox)
  local states, members, known = {}, {}, new_known(arg.key_window, now)
  local buckets = arg.rate and new_buckets(arg.rate, now)

  local function read(message)
    local to, own = message[TO], message[OWN]
    states[to] = states[to] or state(message[TAG], to)
    if own ~= '' then
      states[own] = states[own] or state(message[OWN_TAG], own)
    elseif string.sub(to, 1, 6) == 'group:' then
      local place = to .. '/' .. message[SENDER]
      local group_key = key(message[TAG], 'g', string.sub(to, 7))
      members[place] = members[place] or redis.call('HMGET', group_key, message[SENDER], '/access')
      local record, access = members[place][1], members[place][2]
      if access == 'deleted' then
        message.refusal = 'no_group'
      elseif message[IS_SYSTEM] or not is_member(record) then
        local is_there = access or redis.call('EXISTS', group_key) == 1
        message.refusal = not is_there and 'no_group' or not message[IS_SYSTEM] and 'not_member' or nil
      end
    end
    if message[KEY] ~= '' then read_known(known, message[TAG], states[to].ms, message[KEY]) end
    if buckets and not message[IS_SYSTEM] then bucket_of(buckets, message[SENDER]) end
  end

  -- Writes what is not yet written of a message: all of it, or, when an earlier attempt got as far as the
  -- recipient's entry `id`, the sender's copy.
  local function store(message, id)
    local to, own = states[message[TO]], states[message[OWN]]
    local sender, mid, body = message[SENDER], message[MID], message[BODY]
    local device, trace = message[DEVICE], message[TRACE]
    local common = content('message', sender, to.name, mid, body, '', trace)
    local fields = {'t', 'message', 'f', sender, 'o', to.name, 'i', mid, 'b', body, 'd', device}
    if device == '' then fields[11], fields[12] = nil, nil end
    if trace ~= '' then fields[#fields + 1], fields[#fields + 2] = 'p', trace end
    local is_new, is_whole, copy_id = not id, true, ''
    id = id or append(to, now, fields)
    if own then
      fields[#fields + 1], fields[#fields + 2] = 'r', id
      is_whole, copy_id = pcall(append, own, now, fields)
    end
    if message[KEY] ~= '' then
      local line = id .. ' ' .. message[DIGEST] .. ' ' .. (is_whole and copy_id or '')
      remember(known, message[TAG], message[KEY], line)
    end
    if not is_whole then
      if is_new then deliver(post, to, nil, 0, 0, common) end
      return {'uncertain', 0, 0, 0, 0}
    end
    if not is_new then
      deliver(post, own, nil, message[CONNECTION], message[SEND], common)
      return {'ok', own.ms, own.n, split(id)}
    end
    deliver(post, to, own, message[CONNECTION], message[SEND], common)
    local seen = own or to
    return {'ok', seen.ms, seen.n, to.ms, to.n}
  end

  local function answer(message)
    if message.refusal then return {message.refusal, 0, 0, 0, 0} end
    if message[KEY] == '' or not known.of[message[KEY]] then
      if not buckets or message[IS_SYSTEM] then return store(message) end
      local wait = wait_ms(buckets, message[SENDER])
      if wait > 0 then return {'rate_limited', wait, 0, 0, 0} end
      local result = store(message)
      take_token(buckets, message[SENDER])
      return result
    end
    local id, digest, copy_id = string.match(known.of[message[KEY]], '^(%S+) (%S+) (%S*)$')
    if digest ~= message[DIGEST] then return {'key_reused', 0, 0, 0, 0} end
    if message[OWN] ~= '' and copy_id == '' then return store(message, id) end
    local ms, n = split(message[OWN] == '' and id or copy_id)
    return {'dup', ms, n, split(id)}
  end

  for _, message in ipairs(arg.messages) do message.is_readable = pcall(read, message) end

  local results = {}
  for i, message in ipairs(arg.messages) do
    local to, own = states[message[TO]] or {}, states[message[OWN]] or {}
    local n, own_n = to.n, own.n
    local is_done, result = message.is_readable, nil
    if is_done then is_done, result = pcall(answer, message) end
    results[i] = is_done and result or {(to.n ~= n or own.n ~= own_n) and 'uncertain' or 'internal', 0, 0, 0, 0}
  end
  if buckets then keep_buckets(buckets) end
  hand_over(post, arg.mailbox_cap)
  return {'ok', cmsgpack.pack(results)}
end

redis.register_function{function_name = 'publish_v4', callback = publish, flags = {}}
