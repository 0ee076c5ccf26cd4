//! Mappings: what columns are, and what is said of a wrong name.

use std::fs;

use super::{super::value::Form, *};

fn header(columns: &str) -> Vec<String> {
    columns.split(',').map(str::to_owned).collect()
}

fn turbine() -> Points {
    let forms = [
        ("P_avg".to_owned(), Form::Number),
        ("state".to_owned(), Form::Text),
    ]
    .into();
    Points::Declared {
        model: "turbine".into(),
        forms,
        passthrough: false,
    }
}

fn mapping(device: &str, time: &str) -> Mapping {
    Mapping {
        device_column: Some(device.into()),
        time_column: Some(time.into()),
        ..Mapping::default()
    }
}

#[test]
fn columns_are_points_of_their_name_unless_mapped_or_dropped() {
    let mapping = Mapping {
        map: vec![("power".into(), "P_avg".into())],
        drop: vec!["comment".into()],
        ..mapping("turbine", "at")
    };
    let layout = Layout::new(
        &mapping,
        &header("turbine,at,power,comment,state"),
        &turbine(),
    )
    .unwrap();
    assert_eq!((layout.device, layout.time), (DeviceAt::Column(0), Some(1)));
    let Cells::Wide(points) = layout.cells else {
        panic!("the file is wide");
    };
    let points: Vec<_> = points
        .iter()
        .map(|p| (p.column, &p.key[..], p.form))
        .collect();
    assert_eq!(
        points,
        [
            (2, &b"\"P_avg\":"[..], Form::Number),
            (4, b"\"state\":", Form::Text)
        ]
    );
}

#[test]
fn files_of_query_need_no_flags_and_carry_qualities() {
    let header = header("deviceKey,time,P_avg,P_avg.quality");
    let layout = Layout::new(&Mapping::default(), &header, &turbine()).unwrap();
    let Cells::Wide(points) = layout.cells else {
        panic!("the file is wide");
    };
    assert_eq!((points.len(), points[0].quality), (1, Some(3)));
}

#[test]
fn a_long_file_names_its_columns_and_has_no_others() {
    let long = Mapping {
        long: true,
        ..Mapping::default()
    };
    let layout = |mapping: &Mapping, columns: &str| {
        Layout::new(mapping, &header(columns), &turbine()).map(|layout| layout.cells)
    };
    let (point, value) = (2, 3);
    assert_eq!(
        layout(&long, "deviceKey,time,point,value"),
        Ok(Cells::Long {
            point,
            value,
            quality: None
        })
    );
    let named = Mapping {
        point_column: Some("tag".into()),
        drop: vec!["unit".into()],
        ..Mapping::default()
    };
    assert_eq!(
        layout(&named, "deviceKey,time,tag,value,quality,unit"),
        Ok(Cells::Long {
            point,
            value,
            quality: Some(4)
        })
    );
    let error = layout(&long, "deviceKey,time,point,value,unit").unwrap_err();
    assert!(
        error.contains("unit") && error.contains("--drop"),
        "{error}"
    );
    assert!(
        layout(&named, "deviceKey,time,value,unit")
            .unwrap_err()
            .contains("--point-column")
    );
}

#[test]
fn a_wrong_name_is_named() {
    for (mapping, columns, named) in [
        (mapping("nope", "at"), "turbine,at", "nope"),
        (mapping("turbine", "nope"), "turbine,at", "nope"),
        (mapping("turbine", "at"), "turbine,at,comment", "comment"),
        (
            Mapping {
                map: vec![("at2".into(), "x".into())],
                ..mapping("turbine", "at")
            },
            "turbine,at",
            "at2",
        ),
        (
            Mapping {
                map: vec![("p".into(), "P_avg".into())],
                ..mapping("turbine", "at")
            },
            "turbine,at,p,P_avg",
            "P_avg",
        ),
    ] {
        let error = Layout::new(&mapping, &header(columns), &turbine()).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn flags_win_over_the_mapping_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mapping.yaml");
    let text = "device-column: turbine\ntime-column: at\ntimezone: Europe/Paris\n\
                map: { power: P_avg, wind: Ws_avg }\ndrop: [comment]\nabsent: [NaN]\n";
    fs::write(&path, text).unwrap();
    let flags = Mapping {
        device: Some("R1".into()),
        map: vec![("power".into(), "P_max".into())],
        mapping: Some(path.clone()),
        ..Mapping::default()
    };
    let complete = flags.complete().unwrap();
    assert_eq!(
        (
            complete.device.as_deref(),
            complete.device_column.as_deref()
        ),
        (Some("R1"), None)
    );
    assert_eq!(complete.time_column(), "at");
    assert_eq!(complete.role("power"), Role::Point("P_max"));
    assert_eq!(complete.role("wind"), Role::Point("Ws_avg"));
    assert!(complete.is_absent(" NaN ") && complete.is_absent(""));
    fs::write(&path, "device-colum: turbine\n").unwrap();
    let flags = Mapping {
        mapping: Some(path),
        ..Mapping::default()
    };
    assert!(flags.complete().unwrap_err().contains("device-colum"));
}
