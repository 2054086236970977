//! Without a driver everything says so, and nothing else happens.

use super::*;

#[test]
fn no_driver_is_an_error_like_any_other() {
    // Where there is a driver, the tests with a stand-in for it say the same in a process of
    // their own.
    match Driver::open() {
        Ok(driver) => assert!(driver.version() >= DriverVersion::MIN, "{}", driver.version()),
        Err(error @ CudaError::NoDriver { .. }) => {
            let said = error.to_string();
            assert!(said.contains("libcuda.so.1"), "{said}");
            assert!(error.is_absence() && error.code().is_none(), "{said}");
        }
        Err(error) => assert!(!error.hint().is_empty(), "{error}"),
    }
}
