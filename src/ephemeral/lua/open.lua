-- Keeps a new session. KEYS[1]: the person's hash. ARGV: now, session id, record, cap, longest lifetime in s.
-- Dead fields go in passing; at the cap the least recently used session goes; the key lives an hour longer than its
-- longest-lived session (the TTL is only the broom: expiry is decided by the records).
local now, cap, most = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
local live, dead, longest = {}, {}, 0

local function expiry(record)
  local created, made, idle, absolute = struct.unpack('>I6I6I4I4', record, 7)
  return math.min(made + idle * 1000, created + math.min(absolute, most) * 1000), made
end

local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local id, record = all[i], all[i + 1]
  -- A record of a layout that is newer than this script is left alone.
  if struct.unpack('B', record) == 1 then
    local expires_at, made = expiry(record)
    if expires_at <= now then
      dead[#dead + 1] = id
    elseif id ~= ARGV[2] then
      live[#live + 1] = { id, made }
      longest = math.max(longest, expires_at)
    end
  end
end

if #live >= cap then
  table.sort(live, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end)
  for i = 1, #live - cap + 1 do dead[#dead + 1] = live[i][1] end
end
if #dead > 0 then redis.call('HDEL', KEYS[1], unpack(dead)) end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
longest = math.max(longest, (expiry(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(longest - now, 0) + 3600000))
return 1
