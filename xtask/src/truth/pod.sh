# A pod of two: a sidecar, nginx, before an app on a socket. TERM ends the app at once, and the sidecar only after a while.
sed "s|PORT|$PORT|g; s|DIR|$DIR|g" "$DIR/sidecar.conf.in" > "$DIR/$PORT.conf"
PATH=$PATH:/usr/sbin
nginx -c "$DIR/$PORT.conf" & sidecar=$!
PORT="$DIR/$PORT.sock" HOST= node "$DIR/app.js" & app=$!
trap 'kill $app; sleep 2; kill $sidecar' TERM
wait $app; wait $sidecar
