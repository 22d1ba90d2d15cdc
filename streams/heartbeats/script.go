package heartbeats

import "github.com/redis/go-redis/v9"

// The keys of a partition, as the scripts know them:
//
//	KEYS[1] seen          sorted set: device -> when it counts as silent, ms of Redis' clock
//	KEYS[2] seen:info     hash: device -> {at, session, node, reason}: last heard, and who holds it ("" nobody)
//	KEYS[3] seen:silent   hash: device -> {since, at, reason, told, back}: found silent; told once the log has it,
//	                      back when it was heard again
//	KEYS[4] seen:pending  sorted set: devices in seen:silent that the owner has something to write about. All scores
//	                      are 0, so that the devices of a system are a range by name
//	KEYS[5] seen:watched  hash: at, of the last sweep, roughly; until, when nobody is found silent before that
//	KEYS[6] seen:systems  sorted set: systems that may have devices in seen:pending -> when the owner last got them, 0 never
//
// All times are Redis' own, so that the clocks of processes do not matter. A value
// that cannot be read counts as absent: it must not fail a call that is about
// other devices too.

const prelude = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function get(key, device)
  local raw = redis.call('HGET', key, device)
  if not raw then return nil end
  local ok, value = pcall(cjson.decode, raw)
  if ok and type(value) == 'table' then return value end
end

local function tell(device)
  local system = string.match(device, '^([^/]+)/')
  if not system then return end
  redis.call('ZADD', KEYS[4], 0, device)
  redis.call('ZADD', KEYS[6], 'NX', 0, system)
end

local function systemRange(system, after, limit)
  local from = after == '' and '[' .. system .. '/' or '(' .. after
  -- '0' is the byte after '/'.
  return redis.call('ZRANGEBYLEX', KEYS[4], from, '(' .. system .. '0', 'LIMIT', 0, limit)
end
`

// fields is how many arguments of writeScript one change has.
const fields = 6

// writeScript takes the node's name and then six arguments per change: verb,
// device, session, age in ms, time to silence in ms, reason. It answers the
// indexes of the changes whose session has lost its device to another.
var writeScript = redis.NewScript(prelude + `
local function returned(device, at)
  local silence = get(KEYS[3], device)
  if not silence then return end
  if not silence.back then
    silence.back = at
    redis.call('HSET', KEYS[3], device, cjson.encode(silence))
  end
  tell(device)
end

local lost = {}
for i = 2, #ARGV, 6 do
  local verb, device, session, reason = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 5]
  local at = now - ARGV[i + 3]
  local deadline = at + ARGV[i + 4]
  local info = get(KEYS[2], device)
  local ours = info and info.session == session
  if verb == 'open' or verb == 'alive' and (ours or not info) then
    redis.call('ZADD', KEYS[1], deadline, device)
    redis.call('HSET', KEYS[2], device, cjson.encode({at = at, session = session, node = ARGV[1]}))
    returned(device, at)
  elseif verb == 'alive' then
    lost[#lost + 1] = (i - 2) / 6
  elseif verb == 'close' and (ours or not info and redis.call('HEXISTS', KEYS[3], device) == 0) then
    -- A board that knows nothing of the device has lost its memory.
    redis.call('ZADD', KEYS[1], deadline, device)
    redis.call('HSET', KEYS[2], device, cjson.encode({at = info and info.at or at, session = '', node = ARGV[1], reason = reason}))
  elseif verb == 'await' then
    -- Without info: a session that holds the device is not lost for it.
    if not info and redis.call('HEXISTS', KEYS[3], device) == 0 then redis.call('ZADD', KEYS[1], 'NX', deadline, device) end
  elseif verb == 'forget' and ours then
    redis.call('ZREM', KEYS[1], device)
    redis.call('HDEL', KEYS[2], device)
  elseif verb == 'gone' then
    local silence = get(KEYS[3], device)
    if not silence then
      silence = {since = now, at = info and info.at or 0, reason = reason}
      redis.call('ZREM', KEYS[1], device)
      tell(device)
      redis.call('HSET', KEYS[3], device, cjson.encode(silence))
    elseif silence.back then
      silence.back = nil
      redis.call('HSET', KEYS[3], device, cjson.encode(silence))
    end
  elseif verb == 'back' then
    if not get(KEYS[3], device) then
      redis.call('HSET', KEYS[3], device, cjson.encode({since = now, at = 0, reason = '', told = 'known'}))
    end
    returned(device, at)
  end
end
return lost
`)

// sweepScript moves devices whose time has come to seen:silent, at most ARGV[1], and
// answers how many it moved and then at most ARGV[5] systems that there is something
// to write about, those first that the owner got longest ago.
//
// A device whose silence is being written already was heard since and is silent again.
// Its entry says so, so that it does not delay other devices here.
//
// When the last sweep is ARGV[2] ms ago, times have come because nobody could
// write them or be heard: none counts for ARGV[3] ms. When it was, is written
// only every ARGV[4] ms, so that an idle sweep costs no write.
var sweepScript = redis.NewScript(prelude + `
local watched = redis.call('HMGET', KEYS[5], 'at', 'until')
local since, resume = now - (tonumber(watched[1]) or 0), tonumber(watched[2]) or 0
if watched[1] and since > tonumber(ARGV[2]) then resume = now + ARGV[3] end
if since > tonumber(ARGV[4]) then redis.call('HSET', KEYS[5], 'at', now, 'until', resume) end
local due = {}
if now >= resume then due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1]) end
for _, device in ipairs(due) do
  local info = get(KEYS[2], device) or {at = 0}
  local reason = info.reason
  if not reason or reason == '' then reason = 'heartbeat-missed' end
  redis.call('ZREM', KEYS[1], device)
  redis.call('HDEL', KEYS[2], device)
  local silence = redis.call('ZSCORE', KEYS[4], device) and get(KEYS[3], device)
  if not silence then
    silence = {since = now, at = info.at, reason = reason}
  elseif not silence.told then
    silence.back, silence.at, silence.reason = nil, info.at, reason
  else
    silence.back, silence.again = nil, {at = info.at, reason = reason}
  end
  redis.call('HSET', KEYS[3], device, cjson.encode(silence))
  tell(device)
end
local answer = {tostring(#due)}
local turns = redis.call('ZCARD', KEYS[6]) > tonumber(ARGV[5])
for _, system in ipairs(redis.call('ZRANGE', KEYS[6], 0, ARGV[5] - 1)) do
  if #systemRange(system, '', 1) == 0 then
    redis.call('ZREM', KEYS[6], system)
  else
    answer[#answer + 1] = system
    if turns then redis.call('ZADD', KEYS[6], now, system) end
  end
end
return answer
`)

// pendingScript answers what there is to write about the system ARGV[1], at most
// ARGV[3] devices that follow ARGV[2] by name: device and silence in turn.
var pendingScript = redis.NewScript(prelude + `
local pending = {}
for _, device in ipairs(systemRange(ARGV[1], ARGV[2], ARGV[3])) do
  local silence = redis.call('HGET', KEYS[3], device)
  if silence then
    pending[#pending + 1] = device
    pending[#pending + 1] = silence
  else
    redis.call('ZREM', KEYS[4], device)
  end
end
return pending
`)

// mendScript replaces what is kept of the silences of the devices ARGV and cannot
// be read. Each is what the board says of the device otherwise: heard, when its time
// has not come, or silent. The owner holds that against the state.
var mendScript = redis.NewScript(prelude + `
for _, device in ipairs(ARGV) do
  local silence = {since = now, at = 0, reason = 'heartbeat-missed'}
  if redis.call('ZSCORE', KEYS[1], device) then silence = {since = now, at = 0, reason = '', told = 'known', back = now} end
  redis.call('HSET', KEYS[3], device, cjson.encode(silence))
  tell(device)
end
return #ARGV
`)

// doneScript takes three arguments per device: its name, the since of the silence
// that was written about, and how: 'event' or 'known' for that it is silent, or
// 'back'. Changes since then remain to be written.
var doneScript = redis.NewScript(prelude + `
for i = 1, #ARGV, 3 do
  local device = ARGV[i]
  local silence = get(KEYS[3], device)
  if silence and string.format('%.0f', tonumber(silence.since) or 0) == ARGV[i + 1] then
    if ARGV[i + 2] ~= 'back' then
      silence.told = ARGV[i + 2]
      redis.call('HSET', KEYS[3], device, cjson.encode(silence))
      if not silence.back then redis.call('ZREM', KEYS[4], device) end
    elseif silence.back then
      redis.call('HDEL', KEYS[3], device)
      redis.call('ZREM', KEYS[4], device)
    else
      -- It was silent again while its return was being written.
      local again = silence.again or {at = 0, reason = 'reported'}
      redis.call('HSET', KEYS[3], device, cjson.encode({since = now, at = again.at, reason = again.reason}))
    end
  end
end
return #ARGV / 3
`)

// heldScript answers whether a session holds the device ARGV[1].
var heldScript = redis.NewScript(`
local raw = redis.call('HGET', KEYS[1], ARGV[1])
local ok, info = pcall(cjson.decode, raw or '{}')
return ok and (info.session or '') ~= '' and 1 or 0
`)
