# The shop: each answer takes as long as its query says.
run lambda { |env|
  $stdout.syswrite("#{env['HTTP_X_REQUEST_ID']} #{env['REQUEST_METHOD']} #{env['PATH_INFO']}\n")
  sleep(env['QUERY_STRING'].delete_prefix('ms=').to_f / 1000)
  [200, { 'content-type' => 'text/plain' }, ["sold\n"]]
}
