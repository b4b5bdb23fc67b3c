# What the pages service asks the application for, and the application's own health.
JSON_TYPE = { 'content-type' => 'application/json' }.freeze

run lambda { |env|
  case env['PATH_INFO']
  when '/-/liveness'
    [200, JSON_TYPE, ['{"status":"ok"}']]
  when '/-/readiness'
    # The reading end has an end of file once the master's blackout has begun.
    blackout = IO.select([$until_blackout], nil, nil, 0)
    [blackout ? 503 : 200, JSON_TYPE, [blackout ? '{"status":"shutting down"}' : '{"status":"ok"}']]
  when '/api/v4/internal/pages'
    sleep 0.03
    [200, JSON_TYPE, ['{"lookup_paths":[]}']]
  else
    [404, JSON_TYPE, ['{"message":"404 Not Found"}']]
  end
}
