-- Check-ins of many devices over keep-alive connections, each with a sequence number that rises.
-- Arguments: the file with one token per line, and the first sequence number.

local heads, tails, sent, first = {}, {}, 0, 0

function init(args)
  first = tonumber(args[2])
  for token in io.lines(args[1]) do
    local number = #heads + 1
    local boot = string.format('00000000-0000-4000-8000-%012x', number)
    local tail = ',"settings":{"version":0,"status":"applied","errors":[]},'
      .. '"definitions":{"version":1},"protection":{"state":"protected","reasons":[]},'
      .. '"queue":{"depth":0,"dropped":0}}'
    local start = '{"boot_id":"' .. boot .. '","seq":'
    heads[number] = 'POST /device/v1/check-in HTTP/1.1\r\nHost: bench\r\n'
      .. 'Content-Type: application/json\r\nAuthorization: Bearer ' .. token
      .. '\r\nContent-Length: ' .. (#start + 9 + #tail) .. '\r\n\r\n' .. start
    tails[number] = tail
  end
end

function request()
  local number = sent % #heads + 1
  local sequence = first + math.floor(sent / #heads)
  sent = sent + 1
  return heads[number] .. string.format('%09d', sequence) .. tails[number]
end

function done(summary, latency)
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
