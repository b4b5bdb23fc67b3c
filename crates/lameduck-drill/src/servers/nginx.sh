# nginx is configured by a file only: written from $PORT, beside what it serves.
DIR=$(dirname "$0")
head -c 1200 /dev/zero | tr '\0' 'x' > "$DIR/slow.$PORT" && mv "$DIR/slow.$PORT" "$DIR/slow.txt"
head -c 5200 /dev/zero | tr '\0' 'x' > "$DIR/stream.$PORT" && mv "$DIR/stream.$PORT" "$DIR/stream.txt"
sed "s|PORT|$PORT|g; s|DIR|$DIR|g" "$DIR/nginx.conf.in" > "$DIR/$PORT.conf"
PATH=$PATH:/usr/sbin exec nginx -c "$DIR/$PORT.conf"
