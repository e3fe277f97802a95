-- The rule of refresh, line by line as SessionRecord::rotate. KEYS[1]: the person's hash, KEYS[2]: the session's count
-- of refreshes (line by line as Refreshes::count), in the same slot.
-- ARGV: now, session id, generation, nonce hash, epoch ('' when SQL refused), idle in s, grace in ms,
-- longest lifetime in s, refreshes in a minute (0 for no limit).
-- Answers the name of the decision and the record as it is then, or the wait in ms.
local now, presented = tonumber(ARGV[1]), tonumber(ARGV[3])
local record = redis.call('HGET', KEYS[1], ARGV[2])
if not record then return { 'unknown' } end
if struct.unpack('B', record) ~= 1 then return { 'layout' } end

local epoch, created, made, idle, absolute, current, nonce = struct.unpack('>I4I6I6I4I4I4c16', record, 3)
absolute = math.min(absolute, tonumber(ARGV[8]))
if now >= math.min(made + idle * 1000, created + absolute * 1000) then
  redis.call('HDEL', KEYS[1], ARGV[2])
  return { 'unknown' }
end
if ARGV[5] == '' or tonumber(ARGV[5]) ~= epoch or ARGV[4] ~= nonce then return { 'unknown' } end

-- Theft is told however often somebody asks: only what would give tokens is counted.
local function limited()
  local most = tonumber(ARGV[9])
  if most == 0 then return nil end
  local count, expires_at = 0, now + 60000
  local counted = redis.call('GET', KEYS[2])
  if counted then
    local till, before = struct.unpack('>I6I4', counted)
    -- Timestamp::is_stray.
    if till > now and till <= now + 60000 + 300000 then count, expires_at = before, till end
  end
  if count >= most then return { 'limited', expires_at - now } end
  redis.call('SET', KEYS[2], struct.pack('>I6I4', expires_at, count + 1), 'PX', 120000)
  return nil
end

if presented >= current and presented - current <= 1000 then
  if presented >= 4294967295 then return { 'unknown' } end
  local over = limited()
  if over then return over end
  local moved = string.sub(record, 1, 12)
    .. struct.pack('>I6I4', now, tonumber(ARGV[6]))
    .. string.sub(record, 23, 26)
    .. struct.pack('>I4', presented + 1)
    .. string.sub(record, 31)
  redis.call('HSET', KEYS[1], ARGV[2], moved)
  local ttl = math.min(now + ARGV[6] * 1000, created + absolute * 1000) - now + 3600000
  if redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ttl)) end
  return { presented == current and 'moved' or 'healed', moved }
end
if presented + 1 == current and now < made + tonumber(ARGV[7]) then
  return limited() or { 'repeated', record }
end
return { 'reused', record }
