-- The beginning of a compressed gRPC message, which holds its model's name and which HAProxy itself cannot read:
-- the catalog unpacks it. While that is awaited, HAProxy goes on with everything else.
local TIMEOUT_MS, PREFIX, ENOUGH = 1000, 5, 1024

core.register_action("unpack", { "http-req" }, function(txn, url)
  local answer = core.httpclient():post({
    url = url,
    headers = { ["grpc-encoding"] = { txn.sf:req_hdr("grpc-encoding") } },
    body = txn.f:req_body():sub(PREFIX + 1, PREFIX + ENOUGH),
    timeout = TIMEOUT_MS,
  })
  if answer and answer.status == 200 then
    txn:set_var("txn.unpacked", answer.body)
  end
end, 1)
