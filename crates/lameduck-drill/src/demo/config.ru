# The service of `lameduck demo --app puma`.
run lambda { |env|
  $stdout.syswrite("#{env['HTTP_X_REQUEST_ID']}\n")
  bytes = env['rack.input'].read.to_s.bytesize
  sleep(env['QUERY_STRING'].delete_prefix('ms=').to_f / 1000) if env['PATH_INFO'] == '/slow'
  [200, { 'content-type' => 'text/plain' }, ["#{bytes} bytes\n"]]
}
