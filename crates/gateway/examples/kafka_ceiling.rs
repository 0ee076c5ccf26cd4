//! What rdkafka's own producer delivers on this machine: the ceiling of the benchmark's Kafka scenario.
//!
//! `kafka_ceiling SERVERS TOPIC RECORDS BYTES` sends so many records of so many bytes with the settings
//! that rules use, and prints what it took as a line of JSON.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use rustix::time::{ClockId, clock_gettime};

/// As many devices as the benchmark's farm.
const KEYS: usize = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [servers, topic, records, bytes] = &arguments[..] else {
        return Err("usage: kafka_ceiling SERVERS TOPIC RECORDS BYTES".into());
    };
    let (records, bytes): (usize, usize) = (records.parse()?, bytes.parse()?);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .create()?;
    let payload = vec![b'7'; bytes];
    let keys: Vec<String> = (0..KEYS).map(|number| format!("T{number:06}")).collect();
    let (start, cpu) = (Instant::now(), cpu_s());
    for number in 0..records {
        let mut record = BaseRecord::to(topic)
            .key(&keys[number % KEYS])
            .payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        if number % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120))?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_s() - cpu);
    let line = serde_json::json!({"rows": records, "seconds": seconds, "cpuSeconds": cpu});
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

fn cpu_s() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(used.tv_sec).unwrap_or(0),
        u32::try_from(used.tv_nsec).unwrap_or(0),
    )
    .as_secs_f64()
}
