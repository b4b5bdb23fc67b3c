# A replica in a network namespace of its own, whose address goes with it: as a pod's does.
trap 'kill $child' TERM
nsenter --net=/run/netns/pods node "$0.js" & child=$!
wait $child; wait $child
ip -n pods address del "$HOST/24" dev eth0
