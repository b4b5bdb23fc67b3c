import socket,time,threading,uuid,random
ids=[]
def one(n):
    s=socket.create_connection(('127.0.0.1',18555))
    def req(u): s.sendall(f"POST /tasks HTTP/1.1\r\nHost: x\r\nX-My-Uuid: {u}\r\nContent-Length: 2\r\n\r\nhi".encode())
    req(uuid.uuid4()); s.recv(4096)
    t=4.0 if n%5==0 else 6.0+random.uniform(-0.003,0.006)
    time.sleep(t)
    u=uuid.uuid4()
    try:
        req(u); d=s.recv(4096)
    except OSError as e: d=b''
    if not d: ids.append(str(u))
ts=[threading.Thread(target=one,args=(n,)) for n in range(40)]
[t.start() for t in ts]; [t.join() for t in ts]
open('lost.txt','w').write('\n'.join(ids)+'\n')
print(len(ids))
