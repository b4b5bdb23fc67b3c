import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/** Four workers, GET and POST in turns, over the connections that a client keeps. */
public class Load {
    public static void main(String[] args) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var sent = new AtomicLong();
        var failed = new AtomicLong();
        var over = new AtomicBoolean();
        var workers = new ArrayList<Thread>();
        for (int worker = 0; worker < 4; worker++) {
            int number = worker;
            var thread = new Thread(() -> {
                for (int n = 0; !over.get(); n++) {
                    var request = HttpRequest.newBuilder(URI.create(args[0] + "/j" + number + "-" + n));
                    if (n % 2 == 1) {
                        request.POST(BodyPublishers.ofString("body"));
                    }
                    sent.incrementAndGet();
                    try {
                        var answer = client.send(request.build(), BodyHandlers.ofString());
                        if (answer.statusCode() != 200) {
                            System.out.println(answer);
                            failed.incrementAndGet();
                        }
                        Thread.sleep(5);
                    } catch (Exception error) {
                        System.out.println(error);
                        failed.incrementAndGet();
                    }
                }
            });
            thread.start();
            workers.add(thread);
        }
        while (System.in.read() >= 0) {
        }
        over.set(true);
        for (var thread : workers) {
            thread.join();
        }
        System.out.println("told " + sent + " " + failed);
        System.exit(0);
    }
}
