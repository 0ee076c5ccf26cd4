//! What clients of PostgreSQL read of tables and settings is there, in PostgreSQL's words.

use super::*;

#[tokio::test]
async fn columns_have_the_types_that_postgresql_calls_them_by() {
    let world = small();
    let asked = r"SELECT column_name, ordinal_position, data_type, udt_name, numeric_precision
        FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = 'wind-farm'
          AND column_name IN ('time', 'device', 'sequence', 'P_avg')
        ORDER BY ordinal_position";
    assert_eq!(
        world.cells(asked).await,
        [
            "time 1 timestamp with time zone timestamptz",
            "device 2 text text",
            "sequence 3 bigint int8 64",
            "P_avg 4 double precision float8 53",
        ]
        .map(
            |line| if line.contains("bigint") || line.contains("double") {
                line.to_owned()
            } else {
                format!("{line} ")
            }
        )
    );
    let schemas =
        "SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'public'";
    assert_eq!(world.cells(schemas).await, ["public"]);
    assert!(!world.cells("SHOW TABLES").await.is_empty());
}

#[tokio::test]
async fn what_there_never_is_has_its_columns_and_no_rows() {
    let world = small();
    for asked in [
        "SELECT pid, query, backend_start FROM pg_catalog.pg_stat_activity",
        "SELECT locktype, granted FROM pg_catalog.pg_locks",
        "SELECT name, installed_version FROM pg_catalog.pg_available_extensions",
        "SELECT schemaname, tablename FROM pg_catalog.pg_policies",
        "SELECT aggfnoid FROM pg_catalog.pg_aggregate",
        "SELECT grantee, privilege_type FROM information_schema.table_privileges",
        "SELECT constraint_name FROM information_schema.key_column_usage",
    ] {
        assert!(world.cells(asked).await.is_empty(), "{asked}");
    }
}

#[tokio::test]
async fn columns_that_the_library_lacks_are_null() {
    let world = small();
    let asked = "SELECT relname, relacl IS NULL AS a, reloptions IS NULL AS b FROM pg_catalog.pg_class WHERE relname = 'wind-farm'";
    assert_eq!(world.cells(asked).await, ["wind-farm true true"]);
    let asked = "SELECT count(*) > 0 AS some FROM pg_catalog.pg_attribute WHERE attacl IS NULL";
    assert_eq!(world.cells(asked).await, ["true"]);
}

#[tokio::test]
async fn a_setting_is_the_same_wherever_it_is_looked_at() {
    let world = small();
    let asked = "SELECT name FROM pg_catalog.pg_settings WHERE setting <> current_setting(name)";
    assert!(world.cells(asked).await.is_empty());
    let asked = "SELECT current_setting('server_version'), current_setting('no.such', true) IS NULL AS none";
    assert_eq!(world.cells(asked).await, ["16.6 true"]);
}

#[tokio::test]
async fn a_text_cast_to_a_time_with_a_zone_has_one() {
    let world = small();
    let asked = "SELECT arrow_typeof('2014-01-01T01:00:00+01:00'::timestamptz) AS a";
    assert!(world.cells(asked).await[0].contains("+00:00"));
    let asked =
        "SELECT count(*) FROM \"wind-farm\" WHERE time >= '2014-01-01T00:00:00Z'::timestamptz";
    assert_eq!(world.cells(asked).await, ["3"]);
}
