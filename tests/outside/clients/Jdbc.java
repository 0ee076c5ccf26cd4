/*
 * PostgreSQL's JDBC driver, driven from outside: each line on standard input is a request in JSON, each line on standard
 * output its answer. What a driver refuses is an answer too: {"error": {"state": …, "message": …, "hint": …}}.
 */

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class Jdbc {
    private static final Gson GSON = new GsonBuilder().serializeNulls().serializeSpecialFloatingPointValues().create();

    private Connection connection;
    private Savepoint savepoint;
    /** The one that "cancel" ends; asked of another thread than the one that reads requests. */
    private Statement running;
    private Thread asking;

    public static void main(String[] arguments) throws Exception {
        Jdbc jdbc = new Jdbc();
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonObject request = GSON.fromJson(line, JsonObject.class);
            out.println(GSON.toJson(jdbc.answer(request)));
            out.flush();
        }
    }

    private JsonObject answer(JsonObject request) {
        try {
            return switch (request.get("do").getAsString()) {
                case "connect" -> connect(request);
                case "query" -> query(request);
                case "begin query" -> beginQuery(request);
                case "cancel" -> cancel();
                case "meta" -> meta(request);
                case "set" -> set(request);
                case "get" -> get();
                case "commit" -> { connection.commit(); yield new JsonObject(); }
                case "rollback" -> { connection.rollback(); yield new JsonObject(); }
                case "savepoint" -> { savepoint = connection.setSavepoint("here"); yield new JsonObject(); }
                case "rollback to savepoint" -> { connection.rollback(savepoint); yield new JsonObject(); }
                case "close" -> { connection.close(); yield new JsonObject(); }
                default -> throw new IllegalArgumentException("unknown request " + request);
            };
        } catch (Exception error) {
            return failure(error);
        }
    }

    private static JsonObject failure(Throwable error) {
        JsonObject told = new JsonObject();
        told.addProperty("class", error.getClass().getName());
        told.addProperty("message", error.getMessage());
        if (error instanceof SQLException sql) {
            told.addProperty("state", sql.getSQLState());
        }
        if (error instanceof PSQLException postgres) {
            ServerErrorMessage server = postgres.getServerErrorMessage();
            told.addProperty("hint", server == null ? null : server.getHint());
        }
        JsonObject answer = new JsonObject();
        answer.add("error", told);
        return answer;
    }

    // --- the connection ---

    private JsonObject connect(JsonObject request) throws SQLException {
        Properties properties = new Properties();
        for (Map.Entry<String, JsonElement> property : request.getAsJsonObject("properties").entrySet()) {
            properties.setProperty(property.getKey(), property.getValue().getAsString());
        }
        if (connection != null) {
            connection.close();
        }
        connection = DriverManager.getConnection(request.get("url").getAsString(), properties);
        return new JsonObject();
    }

    private JsonObject set(JsonObject request) throws SQLException {
        if (request.has("autoCommit")) {
            connection.setAutoCommit(request.get("autoCommit").getAsBoolean());
        }
        if (request.has("readOnly")) {
            connection.setReadOnly(request.get("readOnly").getAsBoolean());
        }
        if (request.has("schema")) {
            connection.setSchema(request.get("schema").getAsString());
        }
        return new JsonObject();
    }

    private JsonObject get() throws SQLException {
        JsonObject is = new JsonObject();
        is.addProperty("autoCommit", connection.getAutoCommit());
        is.addProperty("readOnly", connection.isReadOnly());
        is.addProperty("catalog", connection.getCatalog());
        is.addProperty("schema", connection.getSchema());
        is.addProperty("isolation", connection.getTransactionIsolation());
        is.addProperty("valid", connection.isValid(20));
        is.addProperty("version", connection.getMetaData().getDatabaseProductVersion());
        is.addProperty("major", connection.getMetaData().getDatabaseMajorVersion());
        is.addProperty("driver", connection.getMetaData().getDriverVersion());
        return is;
    }

    // --- queries ---

    private PreparedStatement prepared(JsonObject request) throws SQLException {
        PreparedStatement statement = connection.prepareStatement(request.get("sql").getAsString());
        if (request.has("fetch")) {
            statement.setFetchSize(request.get("fetch").getAsInt());
        }
        if (request.has("most")) {
            statement.setMaxRows(request.get("most").getAsInt());
        }
        if (request.has("timeout")) {
            statement.setQueryTimeout(request.get("timeout").getAsInt());
        }
        if (request.has("parameters")) {
            int at = 0;
            for (JsonElement parameter : request.getAsJsonArray("parameters")) {
                bind(statement, ++at, parameter.getAsJsonObject());
            }
        }
        return statement;
    }

    /** A parameter: {"long": 5}, {"text": "a"}, {"time": "2014-01-01T00:00:00Z"}, {"texts": ["a", "b"]}, {"null": "text"}. */
    private void bind(PreparedStatement statement, int at, JsonObject parameter) throws SQLException {
        Map.Entry<String, JsonElement> only = parameter.entrySet().iterator().next();
        JsonElement value = only.getValue();
        switch (only.getKey()) {
            case "int" -> statement.setInt(at, value.getAsInt());
            case "long" -> statement.setLong(at, value.getAsLong());
            case "float" -> statement.setFloat(at, value.getAsFloat());
            case "double" -> statement.setDouble(at, value.getAsDouble());
            case "decimal" -> statement.setBigDecimal(at, value.getAsBigDecimal());
            case "boolean" -> statement.setBoolean(at, value.getAsBoolean());
            case "text" -> statement.setString(at, value.getAsString());
            case "time" -> statement.setObject(at, OffsetDateTime.parse(value.getAsString()));
            case "timestamp" -> statement.setTimestamp(at, java.sql.Timestamp.from(OffsetDateTime.parse(value.getAsString()).toInstant()));
            case "date" -> statement.setObject(at, java.time.LocalDate.parse(value.getAsString()));
            case "texts" -> statement.setArray(at, connection.createArrayOf("text", strings(value.getAsJsonArray())));
            case "longs" -> statement.setArray(at, connection.createArrayOf("int8", longs(value.getAsJsonArray())));
            case "null" -> statement.setNull(at, value.getAsString().equals("text") ? Types.VARCHAR : Types.BIGINT);
            default -> throw new IllegalArgumentException("unknown parameter " + parameter);
        }
    }

    private static Object[] strings(JsonArray values) {
        List<Object> all = new ArrayList<>();
        values.forEach(value -> all.add(value.getAsString()));
        return all.toArray();
    }

    private static Object[] longs(JsonArray values) {
        List<Object> all = new ArrayList<>();
        values.forEach(value -> all.add(value.getAsLong()));
        return all.toArray();
    }

    private JsonObject query(JsonObject request) throws SQLException {
        int times = request.has("times") ? request.get("times").getAsInt() : 1;
        JsonObject answer = new JsonObject();
        try (PreparedStatement statement = prepared(request)) {
            // A statement that is asked often is kept by the server, and its answers come in binary.
            for (int time = 0; time < times; time++) {
                answer = statement.execute() ? rows(statement.getResultSet()) : new JsonObject();
            }
        }
        return answer;
    }

    /** Asks without waiting; "cancel" waits for the answer. */
    private JsonObject beginQuery(JsonObject request) throws SQLException {
        PreparedStatement statement = prepared(request);
        JsonObject told = new JsonObject();
        running = statement;
        asking = new Thread(() -> {
            try {
                told.add("answer", rows(statement.executeQuery()));
            } catch (SQLException error) {
                told.add("answer", failure(error));
            }
        });
        asking.start();
        answered = told;
        return new JsonObject();
    }

    private JsonObject answered;

    private JsonObject cancel() throws SQLException, InterruptedException {
        running.cancel();
        asking.join();
        running.close();
        return answered.getAsJsonObject("answer");
    }

    private static JsonObject rows(ResultSet set) throws SQLException {
        ResultSetMetaData about = set.getMetaData();
        JsonArray columns = new JsonArray();
        JsonArray types = new JsonArray();
        for (int at = 1; at <= about.getColumnCount(); at++) {
            columns.add(about.getColumnLabel(at));
            types.add(about.getColumnTypeName(at));
        }
        JsonArray rows = new JsonArray();
        while (set.next()) {
            JsonArray row = new JsonArray();
            for (int at = 1; at <= about.getColumnCount(); at++) {
                row.add(value(set, at, about.getColumnTypeName(at)));
            }
            rows.add(row);
        }
        JsonObject answer = new JsonObject();
        answer.add("columns", columns);
        answer.add("types", types);
        answer.add("rows", rows);
        return answer;
    }

    private static JsonElement value(ResultSet set, int at, String type) throws SQLException {
        Object value = type.equals("timestamptz") ? set.getObject(at, OffsetDateTime.class) : set.getObject(at);
        if (value instanceof Boolean is) {
            return new JsonPrimitive(is);
        }
        if (value instanceof Number number) {
            return new JsonPrimitive(number);
        }
        if (value instanceof Array array) {
            return GSON.toJsonTree(array.getArray());
        }
        return GSON.toJsonTree(value == null ? null : value.toString());
    }

    // --- what the driver knows of the database ---

    /** {"method": "getTables", "arguments": [null, "public", "%", ["TABLE"]]} */
    private JsonObject meta(JsonObject request) throws Exception {
        DatabaseMetaData meta = connection.getMetaData();
        String name = request.get("method").getAsString();
        JsonArray given = request.getAsJsonArray("arguments");
        for (Method method : DatabaseMetaData.class.getMethods()) {
            if (!method.getName().equals(name) || method.getParameterCount() != given.size()) {
                continue;
            }
            Object[] arguments = new Object[given.size()];
            for (int at = 0; at < arguments.length; at++) {
                arguments[at] = GSON.fromJson(given.get(at), method.getParameterTypes()[at]);
            }
            try {
                Object told = method.invoke(meta, arguments);
                if (told instanceof ResultSet set) {
                    return rows(set);
                }
                JsonObject answer = new JsonObject();
                answer.add("value", GSON.toJsonTree(told));
                return answer;
            } catch (InvocationTargetException error) {
                return failure(error.getCause());
            }
        }
        throw new IllegalArgumentException("no method " + name + " with " + given.size() + " arguments");
    }
}
