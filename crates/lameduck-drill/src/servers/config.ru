# A Rack app with WebSocket echo by full hijack: from then on the connection is the app's, and no server ends it for it.
require 'digest/sha1'

def frame(opcode, payload)
  head = payload.bytesize < 126 ? [payload.bytesize].pack('C') : [126, payload.bytesize].pack('Cn')
  [0x80 | opcode].pack('C') + head + payload
end

def echo(io)
  loop do
    first, short = io.readpartial_exactly(2).unpack('CC')
    length = short & 0x7f
    length = io.readpartial_exactly(2).unpack1('n') if length == 126
    mask = io.readpartial_exactly(4).bytes
    payload = io.readpartial_exactly(length).bytes.each_with_index.map { |b, n| b ^ mask[n & 3] }.pack('C*')
    opcode = first & 0x0f
    io.write(frame(opcode == 9 ? 10 : opcode, payload)) unless opcode == 10
    return if opcode == 8
  end
rescue EOFError, SystemCallError, IOError
  nil
ensure
  io.close
end

# Exactly so many bytes, or the end of the stream.
class Exactly
  def initialize(io) = @io = io
  def write(bytes) = @io.write(bytes)
  def close = @io.close

  def readpartial_exactly(length)
    bytes = +''.b
    bytes << @io.readpartial(length - bytes.bytesize) while bytes.bytesize < length
    bytes
  end
end

class Pieces
  def each
    10.times do
      yield "a piece\n"
      sleep 0.1
    end
  end
end

run lambda { |env|
  $stdout.syswrite("#{env['HTTP_X_REQUEST_ID']}\n")
  if env['HTTP_UPGRADE'].to_s.casecmp?('websocket')
    key = env['HTTP_SEC_WEBSOCKET_KEY'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
    io = env['rack.hijack'].call
    io.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
             "Sec-WebSocket-Accept: #{[Digest::SHA1.digest(key)].pack('m0')}\r\n\r\n")
    Thread.new { echo(Exactly.new(io)) }
    next [-1, {}, []]
  end
  bytes = env['rack.input'].read.to_s.bytesize
  sleep 0.2 if env['PATH_INFO'] == '/slow'
  body = env['PATH_INFO'] == '/stream' ? Pieces.new : ["#{bytes} bytes\n"]
  [200, { 'content-type' => 'text/plain' }, body]
}
