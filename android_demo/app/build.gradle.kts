plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

val runtime = file("libs/lce.aar")
val models = file("src/main/assets/models.json")

android {
    namespace = "org.kbnn.demo"
    compileSdk = 35

    defaultConfig {
        applicationId = "org.kbnn.demo"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.2.0"
        // The architecture that Larq Compute Engine has fast kernels for.
        ndk { abiFilters += "arm64-v8a" }
    }

    androidResources {
        // Models are read as they are; compressing them saves little.
        noCompress += "tflite"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    implementation(files(runtime))
    testImplementation("org.junit.jupiter:junit-jupiter:5.12.2")
    testRuntimeOnly("org.junit.platform:junit-platform-launcher:1.12.2")
    // In unit tests Android's own JSON classes are stubs.
    testImplementation("org.json:json:20250517")
}

val checkInputs by tasks.registering {
    description = "Says what is missing before anything is built."
    val runtimeFile = runtime
    val modelsFile = models
    doLast {
        if (!runtimeFile.isFile) {
            throw GradleException(
                "Larq Compute Engine's Android library is missing. It is on no Maven repository: download the .aar of " +
                    "its releases on GitHub and run ./place_aar.sh DOWNLOADED_FILE",
            )
        }
        if (!modelsFile.isFile) {
            throw GradleException("No models among the assets: run `kbnn export-android RUN` in the repository's root")
        }
    }
}

tasks.named("preBuild") { dependsOn(checkInputs) }
