-- The rule of attempts, line by line as Attempts::reserve. KEYS[1]: the bucket. ARGV: now, the lock (0 for none).
-- Answers the wait in ms; 0 when a failure was counted.
local now, lock = tonumber(ARGV[1]), tonumber(ARGV[2])
local failures, free_at = 0, 0
local bucket = redis.call('GET', KEYS[1])
if bucket then
  local expires_at, counted, free = struct.unpack('>I6I4I6', bucket)
  if expires_at > now then failures, free_at = counted, free end
end
if lock > 0 and failures >= lock then return 3600000 end
-- Timestamp::is_stray.
if free_at > now and free_at <= now + 60000 + 300000 then return free_at - now end
failures = math.min(failures + 1, 4294967295)
local wait = 0
if failures >= 5 then wait = math.min(2 ^ math.min(failures - 5, 6), 60) * 1000 end
redis.call('SET', KEYS[1], struct.pack('>I6I4I6', now + 86400000, failures, wait > 0 and now + wait or 0), 'PX', 86400000 + 3600000)
return 0
