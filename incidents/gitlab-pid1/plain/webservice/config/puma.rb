# A blackout window: after TERM this goes on serving for a while, and says that it is not ready, so that routing can hear of it.
# It helps clients that listen; a proxy in the same pod that was never told goes on sending.
require 'puma/cluster'

threads 4, 16
preload_app!

# Open until the blackout begins; every worker has the reading end.
$until_blackout, $ends_blackout = IO.pipe

module BlackoutWindow
  def stop_workers
    $ends_blackout.close
    sleep ENV.fetch('SHUTDOWN_BLACKOUT_SECONDS', '10').to_f
    super
  end
end
Puma::Cluster.prepend(BlackoutWindow)

on_worker_boot { $ends_blackout.close }
