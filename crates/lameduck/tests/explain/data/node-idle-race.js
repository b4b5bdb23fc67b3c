require('http').createServer((q,r)=>{r.end('ok')}).listen(18555,'127.0.0.1')
