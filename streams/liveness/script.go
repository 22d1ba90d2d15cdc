package liveness

import "github.com/redis/go-redis/v9"

// The keys of a partition, as the scripts take them:
//
//	KEYS[1] seen          sorted set: device -> the time at which it counts as silent, ms of Redis' clock
//	KEYS[2] seen:info     hash: device -> {at, session, node, reason}: last heard, and the session that holds it ("" for none)
//	KEYS[3] seen:silent   hash: device -> {since, at, reason, outcome, back}: found silent; outcome once the owner has dealt
//	                      with it, back once it was heard again
//	KEYS[4] seen:pending  sorted set: the devices in seen:silent about which the owner has to write. All scores are 0, so
//	                      that the devices of a system are a range by name
//	KEYS[5] seen:sweep    hash: at, the rough time of the last sweep; until, the time before which no device is found silent
//	KEYS[6] seen:systems  sorted set: systems that may have devices in seen:pending -> when a sweep last returned them, 0 never
//
// All times are Redis' own, so that the clocks of processes do not matter. A value that cannot
// be decoded counts as absent: it must not fail a call that concerns other devices too.

const prelude = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function get(key, device)
  local raw = redis.call('HGET', key, device)
  if not raw then return nil end
  local ok, value = pcall(cjson.decode, raw)
  if ok and type(value) == 'table' then return value end
end

local function markPending(device)
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

// writeScript takes the node's name, and then six arguments per change: verb, device, session,
// age in ms, time to silence in ms, reason. It returns the indexes of the changes whose session
// has lost its device to another session.
var writeScript = redis.NewScript(prelude + `
local function returned(device, at)
  local silence = get(KEYS[3], device)
  if not silence then return end
  if not silence.back then
    silence.back = at
    redis.call('HSET', KEYS[3], device, cjson.encode(silence))
  end
  markPending(device)
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
    -- Without info and silence, Redis lost what it knew of the device.
    redis.call('ZADD', KEYS[1], deadline, device)
    redis.call('HSET', KEYS[2], device, cjson.encode({at = info and info.at or at, session = '', node = ARGV[1], reason = reason}))
  elseif verb == 'await' then
    -- Info is not written: a session that holds the device must not count as lost.
    if not info and redis.call('HEXISTS', KEYS[3], device) == 0 then redis.call('ZADD', KEYS[1], 'NX', deadline, device) end
  elseif verb == 'forget' and ours then
    redis.call('ZREM', KEYS[1], device)
    redis.call('HDEL', KEYS[2], device)
  elseif verb == 'gone' then
    local silence = get(KEYS[3], device)
    if not silence then
      silence = {since = now, at = info and info.at or 0, reason = reason}
      redis.call('ZREM', KEYS[1], device)
      markPending(device)
      redis.call('HSET', KEYS[3], device, cjson.encode(silence))
    elseif silence.back then
      silence.back = nil
      redis.call('HSET', KEYS[3], device, cjson.encode(silence))
    end
  elseif verb == 'back' then
    if not get(KEYS[3], device) then
      redis.call('HSET', KEYS[3], device, cjson.encode({since = now, at = 0, reason = '', outcome = 'known'}))
    end
    returned(device, at)
  end
end
return lost
`)

// sweepScript moves at most ARGV[1] devices whose time has come to seen:silent. It returns how
// many it moved, and then at most ARGV[5] systems with devices to write about, first those that
// a sweep returned longest ago.
//
// If the silence of a device is being written already, the device was heard since and is silent
// again. Its entry notes that, so that it does not delay other devices here.
//
// If the last sweep was more than ARGV[2] ms ago, devices may have run out of time because no
// process could write or sweep: then no device is found silent for ARGV[3] ms. The time of a
// sweep is written only every ARGV[4] ms, so that an idle sweep costs no write.
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
  elseif not silence.outcome then
    silence.back, silence.at, silence.reason = nil, info.at, reason
  else
    silence.back, silence.again = nil, {at = info.at, reason = reason}
  end
  redis.call('HSET', KEYS[3], device, cjson.encode(silence))
  markPending(device)
end
local answer = {tostring(#due)}
local rotate = redis.call('ZCARD', KEYS[6]) > tonumber(ARGV[5])
for _, system in ipairs(redis.call('ZRANGE', KEYS[6], 0, ARGV[5] - 1)) do
  if #systemRange(system, '', 1) == 0 then
    redis.call('ZREM', KEYS[6], system)
  else
    answer[#answer + 1] = system
    if rotate then redis.call('ZADD', KEYS[6], now, system) end
  end
end
return answer
`)

// pendingScript returns at most ARGV[3] devices of the system ARGV[1] about which the owner has
// to write, those that follow ARGV[2] by name: device and silence in turn.
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

// rebuildScript replaces the silences of the devices ARGV, which cannot be decoded. It derives
// them from the other keys: heard if the device's time has not come, else silent. The owner
// compares that with the device's state.
var rebuildScript = redis.NewScript(prelude + `
for _, device in ipairs(ARGV) do
  local silence = {since = now, at = 0, reason = 'heartbeat-missed'}
  if redis.call('ZSCORE', KEYS[1], device) then silence = {since = now, at = 0, reason = '', outcome = 'known', back = now} end
  redis.call('HSET', KEYS[3], device, cjson.encode(silence))
  markPending(device)
end
return #ARGV
`)

// recordScript takes three arguments per device: its name, the since of the silence, and the
// outcome: 'event' or 'known' if the silence is dealt with, 'back' if the return is. Changes
// after that since remain to be written.
var recordScript = redis.NewScript(prelude + `
for i = 1, #ARGV, 3 do
  local device = ARGV[i]
  local silence = get(KEYS[3], device)
  if silence and string.format('%.0f', tonumber(silence.since) or 0) == ARGV[i + 1] then
    if ARGV[i + 2] ~= 'back' then
      silence.outcome = ARGV[i + 2]
      redis.call('HSET', KEYS[3], device, cjson.encode(silence))
      if not silence.back then redis.call('ZREM', KEYS[4], device) end
    elseif silence.back then
      redis.call('HDEL', KEYS[3], device)
      redis.call('ZREM', KEYS[4], device)
    else
      -- The device fell silent again while its return was being written.
      local again = silence.again or {at = 0, reason = 'reported'}
      redis.call('HSET', KEYS[3], device, cjson.encode({since = now, at = again.at, reason = again.reason}))
    end
  end
end
return #ARGV / 3
`)

// heldScript returns 1 if a session holds the device ARGV[1], else 0.
var heldScript = redis.NewScript(`
local raw = redis.call('HGET', KEYS[1], ARGV[1])
local ok, info = pcall(cjson.decode, raw or '{}')
return ok and (info.session or '') ~= '' and 1 or 0
`)
