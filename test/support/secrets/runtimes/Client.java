import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import javax.net.ssl.HttpsURLConnection;

/** Client new|old URL TOKEN: asks with a bearer token by one of Java's two clients, and prints the version of HTTP, the status and what came. */
public class Client {
  public static void main(String[] args) throws Exception {
    URI uri = URI.create(args[1]);
    String authorization = "Bearer " + args[2];
    if (args[0].equals("new")) {
      HttpRequest request = HttpRequest.newBuilder(uri).header("Authorization", authorization).build();
      HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.version() + " " + answer.statusCode() + " " + answer.body());
    } else {
      HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
      connection.setRequestProperty("Authorization", authorization);
      try (InputStream body = connection.getInputStream()) {
        System.out.println("HTTP_1_1 " + connection.getResponseCode() + " " + new String(body.readAllBytes()));
      }
    }
  }
}
